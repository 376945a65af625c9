"""The four optimizers on the base CNN, each over four learning rates around the study's 0.001.

python scripts/ablation_optimizers.py

Besides the table and the figure of all ablations it draws rates.png.
"""

import csv
from collections.abc import Mapping
from pathlib import Path

import ablation
import numpy as np
from matplotlib.figure import Figure

from flowers_jax import results

RATES = {
    "adam": (0.0001, 0.0003, 0.001, 0.003),
    "adadelta": (0.001, 0.01, 0.1, 1.0),
    "adagrad": (0.001, 0.003, 0.01, 0.03),
    "sgd": (0.001, 0.003, 0.01, 0.03),
}
VARIANTS = {
    f"{name}_{rate}": (
        "improvement_0_base",
        {"optimizer.name": name, "optimizer.learning_rate": rate},
    )
    for name, rates in RATES.items()
    for rate in rates
}


def write_rates(folder: Path) -> None:
    """Writes `rates.png` from the folder's `table.csv`."""
    with open(folder / "table.csv", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    results.write_figure(folder / "rates.png", draw_rates(rows))


def draw_rates(rows: Mapping[str, Mapping[str, str]]) -> Figure:
    """Accuracy against the learning rate, a line for each optimizer.

    Args:
      rows: of `table.csv`, by their variant. The accuracy is that of the weights that a run keeps,
        with its 95 % interval; a variant that has not finished has none and is left out.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, rates in RATES.items():
        there = [rate for rate in rates if rows[f"{name}_{rate}"]["restored_val_accuracy"]]
        middle, low, high = (
            np.array([float(rows[f"{name}_{rate}"][column]) for rate in there])
            for column in ("restored_val_accuracy", "interval_low", "interval_high")
        )
        axes.errorbar(there, middle, (middle - low, high - middle), fmt="o-", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title("Base CNN: accuracy over the learning rate, and its 95 % interval", fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend()
    return figure


if __name__ == "__main__":
    ablation.main("Base CNN: optimizers and learning rates", VARIANTS, write_rates)
