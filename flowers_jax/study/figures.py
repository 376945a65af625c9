"""What single ablations show beside the table and figure that all of them have."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flowers_jax.runs import files, folder, history

# Loss of the predicted probability y' where the truth is y = 0, as the study drew it, and its
# derivative.
LOSSES = {
    "squared error": (lambda predicted: predicted**2, lambda predicted: 2 * predicted),
    "cross-entropy": (
        lambda predicted: -np.log1p(-predicted),
        lambda predicted: 1 / (1 - predicted),
    ),
}
POINT = 0.9
HEADS = ("main", "aux1", "aux2")  # of GoogLeNet


def write_losses(root: Path) -> None:
    """Writes `losses.png` and `losses.md`: the two losses and their tangents at the point."""
    predicted = np.linspace(0, 0.99, 200)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle("Loss of a prediction y' where the truth is y = 0")
    rows = []
    for axes, (name, (loss, derivative)) in zip(figure.subplots(1, 2), LOSSES.items(), strict=True):
        value, slope = loss(POINT), derivative(POINT)
        axes.plot(predicted, loss(predicted), color="tab:blue")
        ends = np.array([POINT - 0.2, POINT + 0.1])
        axes.plot(ends, value + slope * (ends - POINT), "--", color="tab:orange")
        axes.plot(POINT, value, "o", color="tab:orange")
        axes.set_title(f"{name}: {value:.2f} at {POINT}, slope {slope:.1f}", fontsize=10)
        axes.set_xlabel("y'")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.25)
        rows.append([name, f"{value:.2f}", f"{slope:.1f}"])
    files.write_figure(root / "losses.png", figure)
    header = ["loss", f"value at y = 0, y' = {POINT}", "slope"]
    files.write_text(root / "losses.md", files.markdown(header, rows))


def write_rates(root: Path) -> None:
    """Writes `rates.png` from the folder's `table.csv`."""
    rows = {row["variant"]: row for row in files.read_csv(root / "table.csv")}
    files.write_figure(root / "rates.png", draw_rates(rows))


def draw_rates(rows: Mapping[str, Mapping[str, str]]) -> Figure:
    """Accuracy against the learning rate, a line for each optimizer.

    The accuracy is that of the weights that a run keeps, with its 95 % interval. Variants that have
    not finished are left out.

    Args:
      rows: of `table.csv`, by their variants `<optimizer>_<rate>`.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(variant.rpartition("_")[0] for variant in rows):
        points = [
            (float(variant.rpartition("_")[2]), float(row["restored_val_accuracy"]), row)
            for variant, row in rows.items()
            if variant.startswith(f"{name}_") and row["restored_val_accuracy"]
        ]
        rates = [rate for rate, _, _ in points]
        middle = [accuracy for _, accuracy, _ in points]
        below = [accuracy - float(row["interval_low"]) for _, accuracy, row in points]
        above = [float(row["interval_high"]) - accuracy for _, accuracy, row in points]
        axes.errorbar(rates, middle, (below, above), fmt="o-", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title("Base CNN: accuracy over the learning rate, and its 95 % interval", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


def write_heads(root: Path) -> None:
    """Writes `heads.md`: the best validation accuracy of each head, in percent, mean over seeds."""
    rows = []
    for variant in sorted(root.glob("weight_*")):
        found = sorted(path.parent for path in variant.glob("seed_*/summary.json"))
        histories = [history.read(path) for path in found if not folder.is_set_aside(path)]
        if histories:
            best = [
                statistics.mean(max(row[f"val_{head}_accuracy"] for row in h) for h in histories)
                for head in HEADS
            ]
            rows.append([variant.name, *(f"{100 * share:.2f}" for share in best)])
    files.write_text(root / "heads.md", files.markdown(["variant", *HEADS], rows))
