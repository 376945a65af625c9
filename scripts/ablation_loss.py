"""Cross-entropy against squared error: the study's two plots, and the base CNN trained with each.

python scripts/ablation_loss.py
"""

from pathlib import Path

import ablation
import jax
import jax.numpy as jnp
import runner
from matplotlib.figure import Figure

from flowers_jax import results

VARIANTS = {
    loss: ("improvement_0_base", {"loss": loss}) for loss in ("cross_entropy", "squared_error")
}
# Of the predicted probability y' where the truth is y = 0, as the study drew them.
LOSSES = {
    "squared error": lambda predicted: predicted**2,
    "cross-entropy": lambda predicted: -jnp.log1p(-predicted),
}
POINT = 0.9


def values_and_slopes() -> dict[str, tuple[float, float]]:
    """Each loss and its derivative at y = 0, y' = 0.9."""
    pairs = {name: jax.value_and_grad(loss)(POINT) for name, loss in LOSSES.items()}
    return {name: (float(value), float(slope)) for name, (value, slope) in pairs.items()}


def draw(folder: Path) -> None:
    """Writes `losses.png` and `losses.md`: the two losses and their tangents at the point."""
    predicted = jnp.linspace(0, 0.99, 200)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle("Loss of a prediction y' where the truth is y = 0")
    rows = []
    for axes, (name, (value, slope)) in zip(
        figure.subplots(1, 2), values_and_slopes().items(), strict=True
    ):
        axes.plot(predicted, LOSSES[name](predicted), color="tab:blue")
        ends = jnp.array([POINT - 0.2, POINT + 0.1])
        axes.plot(ends, value + slope * (ends - POINT), "--", color="tab:orange")
        axes.plot(POINT, value, "o", color="tab:orange")
        axes.set_title(f"{name}: {value:.2f} at {POINT}, slope {slope:.1f}", fontsize=10)
        axes.set_xlabel("y'")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.25)
        rows.append([name, f"{value:.2f}", f"{slope:.1f}"])
    results.write_figure(folder / "losses.png", figure)
    header = ["loss", f"value at y = 0, y' = {POINT}", "slope"]
    results.write_text(folder / "losses.md", runner.markdown(header, rows))


if __name__ == "__main__":
    ablation.main("Base CNN: cross-entropy and squared error", VARIANTS, draw)
