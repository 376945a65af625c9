"""What is noted of a run while it trains, and summed up when it ends."""

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from flowers_jax.early_stopping import EarlyStopping
from flowers_jax.runs import history, progress, run_folder
from flowers_jax.runs.events import Events
from flowers_jax.runs.history import History, Row
from flowers_jax.runs.run_folder import Summary

log = logging.getLogger(__name__)


class Record:
    """History, early stopping and clock of one run, and their files in its folder.

    Args:
      config: of the run.
      workdir: the run folder.
      heads: of the network.
      num_images: in both splits.
      writes: whether this process writes.

    Attributes:
      history: a row per finished epoch.
      stopping: after the last of them.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        heads: tuple[str, ...],
        num_images: int,
        writes: bool,
    ) -> None:
        self.config, self.workdir = config, workdir
        self.history: History = []
        self.stopping, self._monitor = early_stopping(config)
        self._heads, self._num_images, self._writes = heads, num_images, writes
        self._events: Events | None = None  # from the first epoch of this process on
        self._seconds = 0.0  # of the epoch under way, in earlier processes
        self._start = time.perf_counter()

    @property
    def epoch(self) -> int:
        """Number of the epoch under way, from 1."""
        return len(self.history) + 1

    @property
    def is_done(self) -> bool:
        """Whether no further epoch is to be trained."""
        return len(self.history) >= self.config.max_epochs or self.stopping.should_stop

    @property
    def reports_best(self) -> bool:
        """Whether the run reports its best epoch, or its last."""
        stop = self.config.early_stopping
        return stop is None or stop.restore_best_weights

    def start_epoch(self) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        elapsed = self._seconds + time.perf_counter() - self._start
        return {
            "history": self.history,
            "stopping": dataclasses.asdict(self.stopping),
            "seconds": elapsed,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to what `to_json` gave."""
        self.history = saved["history"]
        # The patience is that of today: without early stopping it grows with the epochs.
        stopping = EarlyStopping(**saved["stopping"])
        self.stopping = dataclasses.replace(stopping, patience=self.stopping.patience)
        self._seconds = saved["seconds"]

    def end_epoch(self, averages: dict[str, float], learning_rate: float) -> bool:
        """Notes the metrics of the epoch; returns whether it is the best so far."""
        epoch = self.epoch
        seconds = self._seconds + time.perf_counter() - self._start
        row: Row = {"epoch": epoch, **averages, "learning_rate": learning_rate, "seconds": seconds}
        self._seconds, self._start = 0.0, time.perf_counter()
        self.history.append(row)
        self.stopping = self.stopping.update(epoch, row[self._monitor])
        if self._writes:
            history.write(self.workdir, self.history, self._heads)
            self._events = self._events or Events(self.workdir, epoch)
            self._events.add(row)
        log.info(
            "%s",
            progress.epoch_line(row, self.config.max_epochs, self._num_images, self.stopping),
        )
        return self.stopping.best_epoch == epoch

    def summary(self, circumstances: dict[str, Any]) -> Summary:
        """What `summary.json` holds: data, model and device as given, and what the history says."""
        best = self.stopping.best_epoch
        reported = best if self.reports_best else len(self.history)
        accuracies = [row["val_accuracy"] for row in self.history]
        seconds = [row["seconds"] for row in self.history]
        return {
            "config": run_folder.json_config(self.config),
            **circumstances,
            "epochs_run": len(self.history),
            "stopped_early": self.stopping.should_stop,
            "monitor": self._monitor,
            "best_epoch": best,
            "best_epoch_val_accuracy": accuracies[best - 1],
            "best_val_accuracy": max(accuracies),
            "reported_epoch": reported,
            "reported_val_accuracy": accuracies[reported - 1],
            "max_train_accuracy": max(row["accuracy"] for row in self.history),
            "train_seconds": sum(seconds),
            "images_per_second": self._num_images / float(np.median(seconds)),
            "versions": run_folder.versions(),
            "seed": self.config.seed,
            "x64": jax.config.values["jax_enable_x64"],
            "matmul_precision": jax.config.values["jax_default_matmul_precision"],
        }


def early_stopping(config: ConfigDict) -> tuple[EarlyStopping, str]:
    """The rule and the column it watches; without one, what finds the best validation accuracy."""
    stop = config.early_stopping
    if stop is None:
        return EarlyStopping("max", patience=config.max_epochs + 1), "val_accuracy"
    return EarlyStopping(stop.mode, stop.patience, stop.min_delta), stop.monitor
