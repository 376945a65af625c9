"""What a run shows while it works: a bar in a terminal or notebook, one log line per epoch."""

import collections
import time

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowers_jax import metrics
from flowers_jax.early_stopping import EarlyStopping
from flowers_jax.runs.history import Row
from flowers_jax.runs.notebook import NotebookDisplay
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
        self._notebook = NotebookDisplay() if console.is_jupyter else None
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
        if self._notebook:
            self._notebook.show(self._progress)
        else:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if not self._notebook:
            self._progress.stop()
        elif kind is None:
            while self._dispatched:
                self._finish_step()
            self._notebook.show(self._progress)

    def advance(self, epoch: Metrics) -> None:
        """Notes that a step was dispatched, and waits for the one `AHEAD` steps before."""
        self._dispatched.append(epoch)
        if len(self._dispatched) <= AHEAD:
            return
        self._finish_step()
        if self._notebook and self._notebook.is_due():
            self._notebook.show(self._progress)

    def _finish_step(self) -> None:
        done = jax.block_until_ready(self._dispatched.popleft())
        if self._progress.disable:
            return
        count = float(done.count)
        now = time.monotonic()
        if self._first_count is None:  # the first step compiles
            self._first_count, self._start = count, now
        speed = (count - self._first_count) / max(now - self._start, 1e-9)
        shown = ""
        if count:  # of finite steps
            loss, accuracy = (float(done.sums[name]) / count for name in ("loss", "accuracy"))
            shown = f"loss {loss:.4f}  accuracy {accuracy:.4f}  {speed:.0f} images/s"
        self._progress.update(self._task, advance=1, metrics=shown)


def epoch_line(row: Row, max_epochs: int, num_images: int, stopping: EarlyStopping) -> str:
    """One line for a finished epoch.

    Args:
      row: of the history.
      max_epochs: of the run.
      num_images: in both splits.
      stopping: after the epoch.
    """
    best = " (best)" if stopping.best_epoch == row["epoch"] else ""
    names = ["loss", *metrics.METRICS]
    values = " ".join(f"{p}{name} {row[p + name]:.4f}" for p in ("", "val_") for name in names)
    return (
        f"epoch {row['epoch']}/{max_epochs}: {values} "
        f"{row['seconds']:.1f} s {num_images / row['seconds']:.0f} images/s{best}"
    )
