"""The weights that a run begins with, and those that it leaves."""

import dataclasses
import logging
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from flowers_jax import models, settings, transfer
from flowers_jax.models import Variables
from flowers_jax.process.errors import UserError
from flowers_jax.runs import run_folder
from flowers_jax.runs.checkpoints import Checkpoints
from flowers_jax.step import TrainState
from flowers_jax.trainer import Trainer

log = logging.getLogger(__name__)


def initial_state(config: ConfigDict, trainer: Trainer) -> TrainState:
    """The state before the first step, with the weights of `config.init_from` if it is set."""
    state = trainer.create_state(config.seed)
    if not config.init_from:
        return state
    source = Path(config.init_from).expanduser()
    if source.is_dir():
        loaded = read(source, trainer.mesh)[2]
    else:
        loaded = transfer.load(source, config.model)
    variables: Variables = {"params": state.params}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    classifier = models.shapes(trainer.task.model, config.image_size).classifier
    started = transfer.initialise(variables, loaded, classifier, config.init_from)
    log.info("starts from the weights of %s", config.init_from)
    return trainer.replicate(dataclasses.replace(state, **started))


def read(workdir: Path, mesh: Mesh) -> tuple[ConfigDict, tuple[str, ...], Variables]:
    """Settings, class names and the weights that a run reports, on all devices of `mesh`.

    Raises:
      UserError: this is not a run folder, or it holds no weights.
    """
    config = settings.from_json(run_folder.read_config(workdir))
    class_names = run_folder.read_class_names(workdir)
    model = models.of_config(config, len(class_names))
    # On the devices of today: the run may have been trained on more of them.
    struct = partial(jax.ShapeDtypeStruct, sharding=NamedSharding(mesh, PartitionSpec()))
    shapes = models.shapes(model, config.image_size).variables
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
    return config, class_names, restored[0]["best"]
