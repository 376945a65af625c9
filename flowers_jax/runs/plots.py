"""Pictures of a run: learning curves, the confusion matrix, and how far its confidence holds."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator

from flowers_jax import calibration
from flowers_jax.runs.evaluate import Evaluation
from flowers_jax.runs.history import History, Original


class Figure(matplotlib.figure.Figure):
    """Matplotlib's figure, which notebooks show without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


TRAINING, VALIDATION = "tab:blue", "tab:orange"


def curves(history: History, best_epoch: int, title: str, original: Original | None) -> Figure:
    """Loss and accuracy over the epochs, training and validation, the best epoch marked.

    Args:
      history: our run.
      best_epoch: from 1.
      title: of the figure.
      original: the study's logged columns of the same run, drawn thin behind; None for none.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    figure.suptitle(title, parse_math=False)
    epochs = [row["epoch"] for row in history]
    # A single epoch shows only as a point.
    marker = "o" if len(history) < 4 else None
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, name, colour in ("", "training", TRAINING), ("val_", "validation", VALIDATION):
            logged = _logged(original, prefix + metric)
            if logged:
                label, logged_epochs = f"{name}, original study", range(1, len(logged) + 1)
                axes.plot(logged_epochs, logged, color=colour, lw=0.8, alpha=0.55, label=label)
            values = [row[prefix + metric] for row in history]
            axes.plot(epochs, values, color=colour, linewidth=1.8, marker=marker, label=name)
        best = next(row for row in history if row["epoch"] == best_epoch)
        axes.axvline(best_epoch, color="0.4", linewidth=0.8, linestyle="--")
        value = best["val_" + metric]
        axes.plot(best_epoch, value, "o", color=VALIDATION, markeredgecolor="black", zorder=3)
        shown = f"{value:.1%}" if metric == "accuracy" else f"{value:.3f}"
        axes.plot([], [], " ", label=f"best epoch {best_epoch}: {shown}")
        _label(axes, metric)
        axes.legend(fontsize=8)
        if metric == "loss":
            _limit_outliers(axes, history, original)
        else:
            axes.set_ylim(0, 1.02)
    return figure


def _label(axes: mpl.axes.Axes, quantity: str) -> None:
    axes.set(xlabel="epoch", ylabel=quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)


def _logged(original: Original | None, column: str) -> Sequence[float] | None:
    """The study's column; GoogLeNet's accuracy is that of its main head."""
    if original is None:
        return None
    return original.get(column) or original.get(column.replace("accuracy", "main_accuracy"))


def _limit_outliers(axes: mpl.axes.Axes, history: History, original: Original | None) -> None:
    """Cuts the loss axis above the bulk of the values, so that one spike does not flatten all."""
    values = [row[column] for row in history for column in ("loss", "val_loss")]
    for column in ("loss", "val_loss"):
        values += _logged(original, column) or []
    finite = np.array([v for v in values if np.isfinite(v)])
    if finite.size:
        limit = 1.5 * np.quantile(finite, 0.95)
        axes.set_ylim(0, None if finite.max() <= limit else limit)


def compare(histories: Mapping[str, Sequence[History]], title: str) -> Figure:
    """Training loss and validation accuracy of several variants over the epochs.

    Args:
      histories: for each variant those of its seeds; each is a thin line, all of one colour, with
        the best epoch marked.
      title: of the figure.
    """
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle(title, parse_math=False)
    colours = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, max(2, len(histories))))
    for axes, column, label, best in zip(
        figure.subplots(1, 2),
        ("loss", "val_accuracy"),
        ("training loss", "validation accuracy"),
        (np.nanargmin, np.nanargmax),
        strict=True,
    ):
        for colour, (name, seeds) in zip(colours, histories.items(), strict=False):
            for i, history in enumerate(seeds):
                values = np.array([row[column] for row in history])
                epochs = [row["epoch"] for row in history]
                axes.plot(
                    epochs, values, color=colour, linewidth=1.2, label=name if not i else None
                )
                if np.isfinite(values).any():
                    k = int(best(values))
                    axes.plot(epochs[k], values[k], "o", color=colour, markersize=4)
        _label(axes, label)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    return figure


def batch(images: np.ndarray, titles: Sequence[str]) -> Figure:
    """Up to 32 images, float `[n, height, width, 3]`, as a network sees them, under their classes.

    One linear scale for all: their least value is black and their largest white.
    """
    images = np.asarray(images[:32], np.float32)
    low, high = float(images.min()), float(images.max())
    rows = -(-len(images) // 8)
    figure = Figure(figsize=(11, 0.6 + 1.5 * rows), layout="constrained")
    figure.suptitle(f"the first batch; values from {low:.3g} to {high:.3g}")
    for axes in (grid := figure.subplots(rows, 8, squeeze=False).ravel()):
        axes.axis("off")
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow((image - low) / max(high - low, 1e-9))
        axes.set_title(title, fontsize=8, parse_math=False)
    return figure


# More classes do not fit a picture that one can read.
MAX_CLASSES = 25


def confusion_matrix(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Counts with rows that are true classes; colour is the share of the row.

    Of more than `MAX_CLASSES` classes it shows those that are confused most often.
    """
    if len(class_names) > MAX_CLASSES:
        mistakes = matrix - np.diag(np.diag(matrix))
        worst = np.argsort(-(mistakes.sum(axis=0) + mistakes.sum(axis=1)), kind="stable")
        shown = np.sort(worst[:MAX_CLASSES])
        title += f"\nthe {MAX_CLASSES} of {len(class_names)} classes that are confused most often"
        matrix, class_names = matrix[np.ix_(shown, shown)], [class_names[i] for i in shown]
    size = 3.2 + 0.62 * len(class_names)
    figure = Figure(figsize=(size + 0.9, size), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(matrix):
        colour = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(len(class_names)), class_names, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


THRESHOLDS = (0.5, 0.7, 0.9)  # of confidence, marked in the curve of accuracy over coverage


def confidence(evaluations: Mapping[str, Evaluation], temperature: float, title: str) -> Figure:
    """A reliability diagram of each split, and accuracy over coverage.

    Args:
      evaluations: of each split, not calibrated.
      temperature: that calibrates them.
      title: of the figure.
    """
    figure = Figure(figsize=(4.6 * (len(evaluations) + 1), 4.6), layout="constrained")
    figure.suptitle(f"{title}\ntemperature {temperature:.2f}", fontsize=10, parse_math=False)
    *panels, coverage = figure.subplots(1, len(evaluations) + 1)
    for axes, (name, evaluation) in zip(panels, evaluations.items(), strict=True):
        images, raw = evaluation.images, evaluation.probabilities
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        calibrated = calibration.calibrate(raw, temperature)
        for label, values, colour in ("before", raw, "0.5"), ("after", calibrated, "tab:blue"):
            bins = calibration.reliability(values, images.labels)
            seen = bins.count > 0
            error = calibration.expected_calibration_error(values, images.labels)
            points = bins.confidence[seen], bins.accuracy[seen]
            axes.plot(*points, color=colour, linewidth=1.2, label=f"{label}: error {error:.3f}")
            area = 10 + 300 * bins.count[seen] / len(images)
            axes.scatter(*points, area, colour, alpha=0.5)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_title(f"{len(images)} {name} images", fontsize=10)
        axes.legend(fontsize=8, loc="upper left")
        accuracy, least = calibration.accuracy_over_coverage(calibrated, images.labels)
        share = np.arange(1, len(images) + 1) / len(images)
        [line] = coverage.plot(share, accuracy, linewidth=1.2, label=name)
        for threshold in THRESHOLDS:
            answered = np.count_nonzero(least >= threshold)
            if answered:
                point = share[answered - 1], accuracy[answered - 1]
                coverage.plot(*point, "o", color=line.get_color(), markersize=4)
                offset = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 8}
                coverage.annotate(f"{threshold:.0%}", point, **offset)
    coverage.set(xlabel="share of the images, surest first", ylabel="accuracy")
    coverage.set(xlim=(0, 1.02), ylim=(None, 1.02))
    coverage.set_title("accuracy over coverage; dots are thresholds", fontsize=10)
    coverage.legend(fontsize=8, loc="lower left")
    for axes in figure.axes:
        axes.grid(alpha=0.25)
    return figure
