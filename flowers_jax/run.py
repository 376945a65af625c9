"""A run that has left weights: its network, ready to classify images."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float
from ml_collections import ConfigDict

from flowers_jax import models, settings
from flowers_jax.data import decode
from flowers_jax.data.batches import Batches
from flowers_jax.data.folder import ImageFolder
from flowers_jax.models import Variables
from flowers_jax.process.errors import UserError
from flowers_jax.runs import folder
from flowers_jax.runs.checkpoints import Checkpoints
from flowers_jax.trainer import Trainer, create_task


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read back.

    Attributes:
      workdir: the run folder.
      config: settings of the run.
      class_names: in the order of the probabilities.
      variables: of the epoch that the run reports.
      trainer: the steps, compiled.
    """

    workdir: Path
    config: ConfigDict
    class_names: tuple[str, ...]
    variables: Variables
    trainer: Trainer

    def predict(self, paths: Sequence[str | Path]) -> Float[np.ndarray, "n classes"]:
        """Class probabilities of image files, decoded and scaled as in training.

        Raises:
          UserError: naming every file that cannot be decoded.
        """
        if not paths:
            return np.zeros((0, len(self.class_names)), np.float32)
        names = [str(path) for path in paths]
        config = self.config
        images, unreadable = decode.decode(
            names,
            config.image_size,
            config.data.resize,
            exif_orientation=config.data.exif_orientation,
        )
        if unreadable:
            bad = {names[i]: why for i, why in unreadable.items()}
            raise UserError(f"{decode.describe_bad(bad, len(names))}. Leave them out.")
        files = ImageFolder(tuple(names), np.zeros(len(names), np.int32), self.class_names)
        batch_size = min(config.batch_size, len(names))
        split = Batches(files, images, np.arange(len(names)), batch_size, self.trainer.mesh)
        return self.trainer.predict(self.variables, split.epoch())


def load(workdir: str | Path) -> Run:
    """Reads a run folder.

    Raises:
      UserError: it holds no weights.
    """
    workdir = Path(workdir)
    config = settings.from_json(folder.read_config(workdir))
    class_names = folder.read_class_names(workdir)
    trainer = Trainer(create_task(config, len(class_names)), config.image_size)
    # On the devices of today: the run may have been trained on more of them.
    struct = partial(jax.ShapeDtypeStruct, sharding=NamedSharding(trainer.mesh, PartitionSpec()))
    shapes = models.shapes(trainer.task.model, config.image_size).variables
    variables = jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), shapes)
    restored = None
    if (workdir / "checkpoints").is_dir():
        with Checkpoints(workdir, read_only=True) as checkpoints:
            restored = checkpoints.restore({"best": {"batch_stats": {}, **variables}})
    if restored is None:
        raise UserError(
            f"{workdir} holds no weights yet; the first are saved after "
            f"{config.checkpoint.every_minutes:g} minutes, and when the run ends or is interrupted."
        )
    return Run(workdir, config, class_names, restored[0]["best"], trainer)
