"""Checkpoints of a run, with orbax: everything it is, at the end of an epoch."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import linen as nn
from orbax.checkpoint.checkpoint_managers import LatestN

from flowers_jax import models, results
from flowers_jax.errors import UserError

log = logging.getLogger(__name__)

# Array trees: `state` (the train state), `best` (params and batch_stats of the best epoch) and
# `sums` (metrics of the epoch under way).
Trees = dict[str, Any]


class Checkpoints:
    """The checkpoints in a run folder; the two newest are kept.

    They are written in the background; leaving the `with` block waits for the last.

    Args:
      workdir: the run folder.
      every_minutes: what `due` goes by.
      read_only: nothing is written, deleted or made.
    """

    def __init__(
        self, workdir: Path, every_minutes: float = 0.0, *, read_only: bool = False
    ) -> None:
        self._every_seconds = 60 * every_minutes
        self._last_save = time.monotonic()
        self._read_only = read_only
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=LatestN(2), read_only=read_only, create=not read_only
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        with _plainly(self._manager.directory):
            self._manager.wait_until_finished()
        self._manager.close()

    def due(self) -> bool:
        """Whether the last one is older than `every_minutes`."""
        return time.monotonic() - self._last_save >= self._every_seconds

    def save(self, number: int, trees: Trees, progress: dict[str, Any]) -> None:
        """Saves array trees and, as JSON, `progress` under a number that grows; each number once.

        Raises:
          UserError: this one, or the one before, cannot be written.
        """
        if number == self._manager.latest_step():
            return
        with _plainly(self._manager.directory):
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                    # As one string: orbax' JSON would refuse NaN, which a history may hold.
                    progress=ocp.args.JsonSave({"json": json.dumps(progress)}),
                ),
            )
        self._last_save = time.monotonic()

    def restore(self, trees: Trees) -> tuple[Trees, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None if there is none at all.

        Newer ones that cannot be read are named in the log and, unless `read_only`, deleted.

        Args:
          trees: arrays or `jax.ShapeDtypeStruct`s of the expected shapes and shardings.

        Raises:
          UserError: there are some, and none can be read.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees)
        unreadable = {}
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(
                    number,
                    args=ocp.args.Composite(
                        **{name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()},
                        progress=ocp.args.JsonRestore(),
                    ),
                )
                progress = json.loads(restored.progress["json"])
            except (ValueError, KeyError, OSError, TypeError) as error:
                unreadable[number] = str(error).splitlines()[0][:200]
                continue
            for broken, reason in unreadable.items():
                path = self._manager.directory / str(broken)
                log.warning(
                    "the checkpoint %s cannot be read (%s); taking %d", path, reason, number
                )
                if not self._read_only:
                    self._manager.delete(broken)
            return {name: restored[name] for name in trees}, progress
        if unreadable:
            number, reason = next(iter(unreadable.items()))
            raise UserError(
                f"no checkpoint in {self._manager.directory} can be read ({number}: {reason}); "
                "train anew with --restart."
            )
        return None


@contextlib.contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Turns what the file system says into a sentence."""
    try:
        with results.full_disk_named(folder):
            yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint in {folder} cannot be written ({str(error).splitlines()[0][:200]}); "
            "the one before is intact."
        ) from error


def best_weights(workdir: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a run and its variables at the best epoch.

    Raises:
      UserError: `workdir` holds no weights.
    """
    config = results.read_config(workdir)
    if config["num_replicas"] > 1:
        first = config["seed"]
        raise UserError(
            f"{workdir} holds several runs; choose one of them: {workdir}/seed_{first}."
        )
    num_classes = len(results.read_class_names(workdir))
    model = models.create_model(config["model"], num_classes, jnp.dtype(config["dtype"]))
    image = jnp.zeros((1, config["image_size"], config["image_size"], 3))
    variables = jax.jit(model.init)(jax.random.key(0), image)
    restored = None
    if (workdir / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as checkpoints:
            restored = checkpoints.restore({"best": {"batch_stats": {}, **variables}})
    if restored is None:
        raise UserError(f"{workdir} holds no weights yet: let the run finish an epoch first.")
    return model, restored[0]["best"]
