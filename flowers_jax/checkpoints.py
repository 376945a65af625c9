"""Checkpoints of a run, with orbax: everything it is, at the end of an epoch."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import linen as nn
from orbax.checkpoint.checkpoint_managers import LatestN

from flowers_jax import models, results
from flowers_jax.errors import UserError

# Array trees: `state` (the train state) and `best` (params and batch_stats of the best epoch).
Trees = dict[str, Any]


class Checkpoints:
    """The checkpoints in a run folder; the two newest are kept."""

    def __init__(self, workdir: Path, every_minutes: float = 0.0) -> None:
        self._every_seconds = 60 * every_minutes
        self._last_save = time.monotonic()
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=LatestN(2), enable_async_checkpointing=False
            ),
        )

    def due(self) -> bool:
        """Whether the last one is older than `every_minutes`."""
        return time.monotonic() - self._last_save >= self._every_seconds

    def save(self, epoch: int, trees: Trees, progress: dict[str, Any]) -> None:
        """Saves array trees and, as JSON, `progress` at the end of `epoch`, once."""
        if epoch == self._manager.latest_step():
            return
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                # As one string: orbax' JSON would refuse NaN, which a history may hold.
                progress=ocp.args.JsonSave({"json": json.dumps(progress)}),
            ),
        )
        self._last_save = time.monotonic()

    def restore(self, trees: Trees) -> tuple[Trees, dict[str, Any]] | None:
        """The newest checkpoint, or None if there is none.

        Args:
          trees: arrays or `jax.ShapeDtypeStruct`s of the expected shapes and shardings.

        Raises:
          UserError: it does not fit the model.
        """
        epoch = self._manager.latest_step()
        if epoch is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees)
        try:
            restored = self._manager.restore(
                epoch,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()},
                    progress=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError, OSError) as error:
            raise UserError(
                f"the checkpoint {self._manager.directory / str(epoch)} cannot be read "
                f"({str(error).splitlines()[0][:200]}); delete it or train anew with --restart."
            ) from error
        return {name: restored[name] for name in trees}, json.loads(restored.progress["json"])

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


def best_weights(workdir: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a run and its variables at the best epoch.

    Raises:
      UserError: `workdir` holds no weights.
    """
    config = results.read_config(workdir)
    num_classes = len(results.read_class_names(workdir))
    model = models.create_model(config["model"], num_classes, jnp.dtype(config["dtype"]))
    image = jnp.zeros((1, config["image_size"], config["image_size"], 3))
    variables = jax.jit(model.init)(jax.random.key(0), image)
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.restore({"best": {"batch_stats": {}, **variables}})
    checkpoints.close()
    if restored is None:
        raise UserError(f"{workdir} holds no weights yet: let the run finish an epoch first.")
    return model, restored[0]["best"]
