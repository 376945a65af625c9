"""What single ablations show beside the table and figure that all of them have."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from flowers_jax.runs import files, history, run_folder

# Loss of the predicted probability p where the truth is 0, as the study drew it, and its slope.
LOSSES = {
    "squared error": (lambda p: p**2, lambda p: 2 * p),
    "cross-entropy": (lambda p: -np.log1p(-p), lambda p: 1 / (1 - p)),
}
POINT = 0.9
HEADS = ("main", "aux1", "aux2")  # of GoogLeNet


def write_losses(root: Path) -> None:
    """Writes `losses.png` and `losses.md`: the two losses and their tangents at the point."""
    predicted = np.linspace(0, 0.99, 200)
    ends = np.array([POINT - 0.2, POINT + 0.1])
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle("Loss of a prediction y' where the truth is y = 0")
    rows = []
    for axes, (name, (loss, derivative)) in zip(figure.subplots(1, 2), LOSSES.items(), strict=True):
        value, slope = loss(POINT), derivative(POINT)
        rows.append([name, f"{value:.2f}", f"{slope:.1f}"])
        axes.plot(predicted, loss(predicted), color="tab:blue")
        axes.plot(ends, value + slope * (ends - POINT), "--", color="tab:orange")
        axes.plot(POINT, value, "o", color="tab:orange")
        axes.set_title(f"{name}: {value:.2f} at {POINT}, slope {slope:.1f}", fontsize=10)
        axes.set(xlabel="y'", ylabel="loss")
        axes.grid(alpha=0.25)
    files.write_figure(root / "losses.png", figure)
    header = ["loss", f"value at y = 0, y' = {POINT}", "slope"]
    files.write_text(root / "losses.md", files.markdown(header, rows))


def write_rates(root: Path) -> None:
    """Writes `rates.png` from the folder's `table.csv`."""
    rows = {row["variant"]: row for row in files.read_csv(root / "table.csv")}
    files.write_figure(root / "rates.png", draw_rates(rows))


def draw_rates(rows: Mapping[str, Mapping[str, str]]) -> Figure:
    """Accuracy against the learning rate, a line for each optimizer.

    The accuracy is that of the weights that a run keeps, with its 95 % interval. The rows are by
    their variants `<optimizer>_<rate>`; those that have not finished are left out.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    columns = ("restored_val_accuracy", "interval_low", "interval_high")
    lines: dict[str, list[list[float]]] = {}
    for variant, row in rows.items():
        name, _, rate = variant.rpartition("_")
        points = lines.setdefault(name, [])
        if row["restored_val_accuracy"]:
            points.append([float(rate), *(float(row[column]) for column in columns)])
    for name, points in lines.items():
        rates, middle, low, high = np.reshape(points, (-1, 4)).T
        axes.errorbar(rates, middle, (middle - low, high - middle), fmt="o-", capsize=3, label=name)
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy (%)")
    axes.set_title("Base CNN: accuracy over the learning rate, and its 95 % interval", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


def write_heads(root: Path) -> None:
    """Writes `heads.md`: the best validation accuracy of each head, in percent, mean over seeds."""
    rows = []
    for variant in sorted(root.glob("weight_*")):
        found = sorted(path.parent for path in variant.glob("seed_*/summary.json"))
        histories = [history.read(path) for path in found if not run_folder.is_set_aside(path)]
        if histories:
            columns = [f"val_{head}_accuracy" for head in HEADS]
            best = [statistics.mean(max(row[c] for row in h) for h in histories) for c in columns]
            rows.append([variant.name, *(f"{100 * share:.2f}" for share in best)])
    files.write_text(root / "heads.md", files.markdown(["variant", *HEADS], rows))
