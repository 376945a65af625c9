"""What a run shows while it works: a bar in a terminal, one log line per epoch anywhere."""

import math
import sys
import time

import jax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from flowers_jax.early_stopping import EarlyStopping


class EpochBar:
    """A bar over the steps of one epoch; shows nothing where the output is no terminal.

    Args:
      epoch: its number.
      max_epochs: of the run.
      steps: of the epoch.
      done: steps that an interrupted process had done.
    """

    def __init__(self, epoch: int, max_epochs: int, steps: int, done: int = 0) -> None:
        self._progress = Progress(
            TextColumn(f"epoch {epoch}/{max_epochs}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            transient=True,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._progress.add_task("", total=steps, completed=done, metrics="")
        self._done = done
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> "EpochBar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def advance(self, num_steps: int, sums: dict[str, jax.Array]) -> None:
        """Shows progress; reads the sums, which waits for the device, twice a second at most."""
        if self._progress.disable:
            return
        self._progress.advance(self._task, num_steps)
        now = time.monotonic()
        if now - self._shown > 0.5:
            self._shown = now
            # Over all replicas, where there are several.
            count, loss, correct = (
                float(sums[name].sum()) for name in ("count", "loss", "correct")
            )
            count = count or math.nan
            share = 1 - self._done / self._progress.tasks[0].completed  # of this process
            self._progress.update(
                self._task,
                metrics=f"loss {loss / count:.4f}  accuracy {correct / count:.4f}  "
                f"{share * count / (now - self._start):.0f} images/s",
            )


def epoch_line(
    row: dict[str, float], max_epochs: int, num_images: int, stopping: EarlyStopping
) -> str:
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
