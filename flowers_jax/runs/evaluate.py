"""Predictions of a labelled split as tables, a report and a picture."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import files

Probabilities = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]
Matrix = Int[np.ndarray, "classes classes"]


def write(workdir: Path, images: ImageFolder, probabilities: Probabilities, title: str) -> None:
    """Writes `predictions.csv`, `confusion_matrix.csv` and `.png`, `classification_report.txt`.

    Args:
      workdir: the run folder.
      images: the labelled images.
      probabilities: of each of them.
      title: of the picture.
    """
    from flowers_jax.runs import plots

    names = images.class_names
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(images.labels, predicted, len(names))
    write_predictions(workdir, images, probabilities)
    files.write_csv(
        workdir / "confusion_matrix.csv",
        ["true class", *names],
        ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    )
    report = classification_report(images.labels, predicted, names)
    files.write_text(workdir / "classification_report.txt", report)
    figure = plots.confusion_matrix(matrix, names, title)
    files.write_figure(workdir / "confusion_matrix.png", figure)


def write_predictions(workdir: Path, images: ImageFolder, probabilities: Probabilities) -> None:
    """Writes `predictions.csv`: `path,label,predicted` and a probability per class.

    The column of a class that has one of these three names begins with "class ".
    """
    names, first = images.class_names, ["path", "label", "predicted"]
    predicted = probabilities.argmax(axis=1)
    rows = zip(images.paths, images.labels, predicted, probabilities.tolist(), strict=True)
    files.write_csv(
        workdir / "predictions.csv",
        [*first, *(f"class {name}" if name in first else name for name in names)],
        ([path, names[i], names[j], *row] for path, i, j, row in rows),
    )


def confusion_matrix(labels: Labels, predicted: Labels, num_classes: int) -> Matrix:
    """Counts with rows that are the true class. The study printed the transpose."""
    from sklearn import metrics

    return metrics.confusion_matrix(labels, predicted, labels=range(num_classes))


def classification_report(labels: Labels, predicted: Labels, class_names: tuple[str, ...]) -> str:
    """scikit-learn's table of precision, recall and F1 per class."""
    from sklearn import metrics

    return metrics.classification_report(
        labels,
        predicted,
        labels=range(len(class_names)),
        target_names=class_names,
        digits=4,
        zero_division=0,
    )
