"""Predictions of labelled images as metrics, tables, a report and a picture."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import files

Probabilities = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]
Matrix = Int[np.ndarray, "classes classes"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network makes of labelled images.

    Attributes:
      images: the labelled images.
      probabilities: of each of them.
      metrics: those of the history, such as `loss` and `accuracy`.
      confusion_matrix: counts with rows that are the true class.
      report: scikit-learn's table of precision, recall and F1 per class.
    """

    images: ImageFolder
    probabilities: Probabilities
    metrics: dict[str, float]
    confusion_matrix: Matrix
    report: str


def evaluate(
    images: ImageFolder, probabilities: Probabilities, metrics: dict[str, float]
) -> Evaluation:
    """Compares predictions with the labels."""
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(images.labels, predicted, len(images.class_names))
    report = classification_report(images.labels, predicted, images.class_names)
    return Evaluation(images, probabilities, metrics, matrix, report)


def write(folder: Path, evaluation: Evaluation, title: str) -> None:
    """Writes `predictions.csv`, `confusion_matrix.csv` and `.png`, `classification_report.txt`.

    Args:
      folder: that of a run, or a folder in it.
      evaluation: what they say.
      title: of the picture.
    """
    from flowers_jax.runs import plots

    names, matrix = evaluation.images.class_names, evaluation.confusion_matrix
    write_predictions(folder, evaluation.images, evaluation.probabilities)
    files.write_csv(
        folder / "confusion_matrix.csv",
        ["true class", *names],
        ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    )
    files.write_text(folder / "classification_report.txt", evaluation.report)
    figure = plots.confusion_matrix(matrix, names, title)
    files.write_figure(folder / "confusion_matrix.png", figure)


def read_confusion_matrix(folder: Path) -> Matrix:
    """What `write` left in `confusion_matrix.csv`."""
    # Not by column, as a class may be called "true class".
    text = (folder / "confusion_matrix.csv").read_text("utf-8")
    _, *rows = csv.reader(io.StringIO(text))
    return np.array([row[1:] for row in rows], int)


def write_predictions(workdir: Path, images: ImageFolder, probabilities: Probabilities) -> None:
    """Writes `predictions.csv`: `path,label,predicted` and a probability per class."""
    names = images.class_names
    predicted = probabilities.argmax(axis=1)
    rows = zip(images.paths, images.labels, predicted, probabilities.tolist(), strict=True)
    files.write_csv(
        workdir / "predictions.csv",
        ["path", "label", "predicted", *class_columns(names)],
        ([path, names[i], names[j], *row] for path, i, j, row in rows),
    )


def class_columns(class_names: Sequence[str]) -> list[str]:
    """Columns of probabilities; that of a class called like another column begins with "class "."""
    others = ("path", "label", "predicted")
    return [f"class {name}" if name in others else name for name in class_names]


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
