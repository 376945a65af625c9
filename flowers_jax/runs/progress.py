"""What a run shows while it works: a bar in a terminal, one log line per epoch anywhere."""

import collections
import time

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowers_jax.early_stopping import EarlyStopping
from flowers_jax.runs.history import Row
from flowers_jax.step import Metrics

# Steps that the host may be ahead of the devices. Enough to keep them busy, few enough that a
# signal is obeyed soon and the bar shows what is done.
AHEAD = 8


class EpochBar:
    """A bar over the steps of one epoch; shows nothing outside of terminals and notebooks.

    Args:
      epoch: its number.
      max_epochs: of the run.
      steps: in the epoch.
      done: steps that an interrupted process had taken.
    """

    def __init__(self, epoch: int, max_epochs: int, steps: int, done: int = 0) -> None:
        console = Console()
        self._progress = Progress(
            TextColumn(f"epoch {epoch}/{max_epochs}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),  # moves while the first step compiles
            TextColumn("{task.fields[metrics]}"),
            transient=True,
            console=console,
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._task = self._progress.add_task("", total=steps, completed=done, metrics="")
        self._dispatched: collections.deque[Metrics] = collections.deque()
        self._start = time.monotonic()
        self._first_count: float | None = None

    def __enter__(self) -> "EpochBar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def advance(self, metrics: Metrics) -> None:
        """Notes that a step was dispatched, and waits for the one `AHEAD` steps before."""
        self._dispatched.append(metrics)
        if len(self._dispatched) <= AHEAD:
            return
        done = jax.block_until_ready(self._dispatched.popleft())
        if self._progress.disable:
            return
        count, loss = float(done.count), float(done.sums["loss"])
        accuracy = float(done.sums["accuracy"])
        now = time.monotonic()
        if self._first_count is None:  # the first step compiles
            self._first_count, self._start = count, now
        speed = (count - self._first_count) / max(now - self._start, 1e-9)
        shown = f"loss {loss / count:.4f}  accuracy {accuracy / count:.4f}  {speed:.0f} images/s"
        self._progress.update(self._task, advance=1, metrics=shown if count else "")


def epoch_line(row: Row, max_epochs: int, num_images: int, stopping: EarlyStopping) -> str:
    """One line for a finished epoch.

    Args:
      row: of the history.
      max_epochs: of the run.
      num_images: in both splits.
      stopping: after the epoch.
    """
    best = " (best)" if stopping.best_epoch == row["epoch"] else ""
    return (
        f"epoch {row['epoch']}/{max_epochs}: loss {row['loss']:.4f} accuracy {row['accuracy']:.4f} "
        f"val_loss {row['val_loss']:.4f} val_accuracy {row['val_accuracy']:.4f} "
        f"{row['seconds']:.1f} s {num_images / row['seconds']:.0f} images/s{best}"
    )
