"""Predictions of labelled images as metrics, tables, a report and a picture."""

import csv
import dataclasses
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from flowers_jax import calibration
from flowers_jax.calibration import Labels, Probabilities
from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import files

Matrix = Int[np.ndarray, "classes classes"]

log = logging.getLogger(__name__)


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


def scores(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """What a summary says of each split, and `temperature`, fitted on the split 'validation'."""
    validation = evaluations["validation"]
    temperature = calibration.fit_temperature(validation.probabilities, validation.images.labels)
    found: dict[str, Any] = {"temperature": temperature}
    for name, evaluation in evaluations.items():
        calibrated = calibration.calibrate(evaluation.probabilities, temperature)
        found[name] = scores_of(evaluation.probabilities, calibrated, evaluation.images.labels)
        shown = {key: f"{value:.4f}" for key, value in found[name].items() if key != "interval"}
        log.info("%s: %s", name, ", ".join(f"{key} {value}" for key, value in shown.items()))
    return found


def scores_of(
    probabilities: Probabilities, calibrated: Probabilities, labels: Labels
) -> dict[str, Any]:
    """Accuracy with its 95 % interval, macro F1, log loss and expected calibration error."""
    from sklearn import metrics

    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    found = {
        "accuracy": right / len(labels),
        "interval": list(wilson(right, len(labels))),
        "macro_f1": float(metrics.f1_score(labels, predicted, average="macro")),
    }
    for prefix, values in (("", probabilities), ("calibrated_", calibrated)):
        found[f"{prefix}log_loss"] = log_loss(values, labels)
        error = calibration.expected_calibration_error(values, labels)
        found[f"{prefix}calibration_error"] = error
    return found


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean of minus the log of the label's probability; what was rounded to 0 counts as 1e-38."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(of_label, calibration.LEAST)).mean(dtype=np.float64))


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, for other images of the same kind."""
    from scipy import stats

    found = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def write(folder: Path, evaluation: Evaluation, title: str, prefix: str = "") -> None:
    """Writes `predictions.csv`, `confusion_matrix.csv` and `.png`, `classification_report.txt`.

    Args:
      folder: that of a run, or a folder in it.
      evaluation: what they say.
      title: of the picture.
      prefix: of the files' names.
    """
    from flowers_jax.runs import plots

    names, matrix = evaluation.images.class_names, evaluation.confusion_matrix
    predictions = folder / f"{prefix}predictions.csv"
    write_predictions(predictions, evaluation.images, evaluation.probabilities)
    write_confusion_matrix(folder / f"{prefix}confusion_matrix.csv", matrix, names)
    files.write_text(folder / f"{prefix}classification_report.txt", evaluation.report)
    figure = plots.confusion_matrix(matrix, names, title)
    files.write_figure(folder / f"{prefix}confusion_matrix.png", figure)


def write_confusion_matrix(path: Path, matrix: Matrix, class_names: Sequence[str]) -> None:
    """Writes a confusion matrix as a table."""
    rows = ([name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True))
    files.write_csv(path, ["true class", *class_names], rows)


def read_confusion_matrix(folder: Path) -> Matrix:
    """What `write` left in `confusion_matrix.csv`."""
    # Not by column, as a class may be called "true class".
    text = (folder / "confusion_matrix.csv").read_text("utf-8")
    _, *rows = csv.reader(io.StringIO(text))
    return np.array([row[1:] for row in rows], int)


def write_predictions(path: Path, images: ImageFolder, probabilities: Probabilities) -> None:
    """Writes predictions as a table: `path,label,predicted` and a probability per class."""
    names = images.class_names
    predicted = probabilities.argmax(axis=1)
    rows = zip(images.paths, images.labels, predicted, probabilities.tolist(), strict=True)
    files.write_csv(
        path,
        ["path", "label", "predicted", *class_columns(names)],
        ([name, names[i], names[j], *row] for name, i, j, row in rows),
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
