"""The history of a run: a row per epoch, in `history.csv`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flowers_jax import metrics
from flowers_jax.runs import files

Row = dict[str, float]
History = list[Row]
Original = Mapping[str, Sequence[float]]  # a run of the study: its logged columns


def columns(heads: Sequence[str]) -> list[str]:
    """The columns of `history.csv`, in order, for a network with these heads."""
    first = ["loss", "accuracy", "val_loss", "val_accuracy"]
    rest = [name for name in metrics.columns(heads) if name not in first]
    return ["epoch", *first, "learning_rate", "seconds", *rest]


def write(workdir: Path, history: History, heads: Sequence[str]) -> None:
    """Writes `history.csv`."""
    names = columns(heads)
    rows = ([row[name] for name in names] for row in history)
    files.write_csv(workdir / "history.csv", names, rows)


def read(workdir: Path) -> History:
    """Reads `history.csv`."""
    rows = files.read_csv(workdir / "history.csv")
    return [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in rows]
