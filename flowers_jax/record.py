"""What is noted of a run while it trains, and written when it ends."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX
from ml_collections import ConfigDict

from flowers_jax import progress, results
from flowers_jax.data.folder import ImageFolder
from flowers_jax.early_stopping import EarlyStopping

log = logging.getLogger(__name__)


class Record:
    """History and early stopping of one run, and their files in its folder.

    The events for TensorBoard are written inside a `with` block.

    Args:
      config: of the run.
      workdir: the run folder.
      heads: as of `models.head_names`.
      writes: whether this process writes.
      prefix: of the line that is logged for an epoch.

    Attributes:
      history: a row per finished epoch.
      stopping: after the last of them.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        heads: tuple[str, ...],
        writes: bool,
        prefix: str = "",
    ) -> None:
        self.config, self.workdir = config, workdir
        self.history: results.History = []
        self.stopping, self._monitor = early_stopping(config)
        self._heads = heads
        self._writes, self._prefix = writes, prefix

    def __enter__(self) -> "Record":
        self._events = tensorboardX.SummaryWriter(
            str(self.workdir), purge_step=len(self.history) + 1, write_to_disk=self._writes
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._events.close()

    @property
    def is_done(self) -> bool:
        """Whether no further epoch is to be trained."""
        return len(self.history) >= self.config.max_epochs or self.stopping.should_stop

    @property
    def restores_best(self) -> bool:
        """Whether the run reports its best epoch, or its last."""
        stop = self.config.early_stopping
        return stop is None or stop.restore_best_weights

    def to_json(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"history": self.history, "stopping": dataclasses.asdict(self.stopping)}

    def restore(self, saved: dict[str, Any]) -> None:
        """Goes back to what `to_json` gave."""
        self.history = saved["history"]
        self.stopping = EarlyStopping(**saved["stopping"])

    def add(self, row: dict[str, float], num_images: int) -> bool:
        """Notes the row of the next epoch; returns whether it is the best so far."""
        epoch = row["epoch"]
        self.history.append(row)
        self.stopping = self.stopping.update(epoch, row[self._monitor])
        if self._writes:
            results.write_history(self.workdir, self.history, self._heads)
        for name, value in row.items():
            if name != "epoch":
                self._events.add_scalar(name, value, epoch)
        self._events.flush()
        line = progress.epoch_line(row, self.config.max_epochs, num_images, self.stopping)
        log.info("%s", self._prefix + line)
        return self.stopping.best_epoch == epoch

    def finish(
        self, facts: dict[str, Any], files: ImageFolder, probabilities: np.ndarray
    ) -> dict[str, Any]:
        """Writes the results; returns what `summary.json` holds.

        Args:
          facts: of the summary, what this object does not know.
          files: of the validation split, `[n]`.
          probabilities: of the reported epoch's weights, `[n, num_classes]`.
        """
        best = self.stopping.best_epoch
        reported = best if self.restores_best else len(self.history)
        accuracies = [row["val_accuracy"] for row in self.history]
        seconds = [row["seconds"] for row in self.history]
        num_images = facts["num_train"] + facts["num_validation"]
        summary = {
            "config": results.json_config(self.config),
            **facts,
            "epochs_run": len(self.history),
            "stopped_early": self.stopping.should_stop,
            "best_epoch": best,
            "best_val_accuracy": max(accuracies),
            "reported_epoch": reported,
            "reported_val_accuracy": accuracies[reported - 1],
            "max_train_accuracy": max(row["accuracy"] for row in self.history),
            "train_seconds": sum(seconds),
            "images_per_second": num_images / float(np.median(seconds)),
            "versions": results.versions(),
            "seed": self.config.seed,
        }
        if self._writes:
            results.write_evaluation(self.workdir, summary, self.history, files, probabilities)
            results.write_json(self.workdir / "summary.json", summary)
        log.info(
            "best epoch %d of %d, validation accuracy %.2f %%; results in %s",
            best,
            len(self.history),
            100 * max(accuracies),
            self.workdir,
        )
        return summary


def early_stopping(config: ConfigDict) -> tuple[EarlyStopping, str]:
    """The rule and the column it watches; without one, what finds the best validation accuracy."""
    stop = config.early_stopping
    if stop is None:
        return EarlyStopping("max", patience=config.max_epochs + 1), "val_accuracy"
    return EarlyStopping(stop.mode, stop.patience, stop.min_delta), stop.monitor
