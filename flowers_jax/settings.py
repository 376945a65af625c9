"""Checks a config before any data is read, and names everything that is wrong at once."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flowers_jax import models, optimizers, results, transfer
from flowers_jax.data import augment, folder, pipeline, sources
from flowers_jax.errors import UserError
from flowers_jax.losses import LOSSES

CHOICES = {
    "model": tuple(models.MODELS),
    "input_scaling": tuple(augment.SCALINGS),
    "dtype": ("float32", "bfloat16"),
    "loss": tuple(LOSSES),
    "optimizer.name": tuple(optimizers.OPTIMIZERS),
    "data.source": sources.SOURCES,
    "data.split": folder.SPLITS,
    "data.resize": pipeline.RESIZES,
    "data.on_bad_image": ("error", "skip"),
    "early_stopping.mode": ("max", "min"),
}
POSITIVE = (
    "image_size",
    "batch_size",
    "max_epochs",
    "optimizer.learning_rate",
    "early_stopping.patience",
    "data.holdout_per_class",
)
NOT_NEGATIVE = (
    "seed",
    "aux_weight",
    "data.split_seed",
    "data.leaked",
    "early_stopping.min_delta",
    "checkpoint.every_minutes",
)


def check(config: ConfigDict) -> None:
    """Raises UserError naming every setting of `config` that cannot be used."""
    faults = []
    for key, choices in CHOICES.items():
        value = _get(config, key)
        if value is not None and value not in choices:
            faults.append(f"{key}={value!r} is not one of {', '.join(choices)}")
    for key in POSITIVE:
        value = _get(config, key)
        if value is not None and not value > 0:
            faults.append(f"{key}={value} must be greater than 0")
    for key in NOT_NEGATIVE:
        value = _get(config, key)
        if value is not None and value < 0:
            faults.append(f"{key}={value} must not be negative")
    if not 0 < config.data.validation_fraction < 1:
        faults.append(f"data.validation_fraction={config.data.validation_fraction} is not in (0,1)")
    if config.data.leaked and config.data.split != "holdout":
        faults.append(f"data.leaked={config.data.leaked} needs data.split='holdout'")
    devices = jax.device_count()
    if config.batch_size % devices:
        faults.append(
            f"batch_size={config.batch_size} cannot be divided among {devices} devices; "
            f"choose a multiple of {devices}"
        )
    if config.early_stopping is not None and config.model in models.MODELS:
        columns = results.metric_columns(models.head_names(models.create_model(config.model)))
        if config.early_stopping.monitor not in columns:
            faults.append(
                f"early_stopping.monitor={config.early_stopping.monitor!r} is not logged; "
                f"{config.model} logs {', '.join(columns)}"
            )
    if config.optimizer.name in optimizers.OPTIMIZERS:
        try:
            optimizers.create_optimizer(config.optimizer)
        except UserError as error:
            faults.append(str(error).rstrip("."))
    if config.init_from and not Path(config.init_from).expanduser().is_file():
        faults.append(f"init_from={config.init_from!r} is no file")
    if config.frozen and config.model in models.MODELS:
        unknown, names = transfer.unknown_patterns(config.model, config.frozen)
        if unknown:
            faults.append(
                f"frozen={', '.join(unknown)} matches no layer; {config.model} has "
                f"{', '.join(names)}"
            )
    if config.model in models.MODELS and config.image_size > 0 and _too_small(config):
        faults.append(f"image_size={config.image_size} is too small for {config.model}")
    if faults:
        raise UserError("these settings cannot be used: " + "; ".join(faults) + ".")


def _too_small(config: ConfigDict) -> bool:
    """Whether an image is pooled away before it reaches the classifier."""
    model = models.create_model(config.model)
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
    except (ValueError, TypeError, ZeroDivisionError):
        return True
    return any(0 in leaf.shape for leaf in jax.tree.leaves(variables))


def _get(config: ConfigDict, key: str) -> object:
    """The value at the dotted `key`, None where a part of the path is None."""
    value = config
    for part in key.split("."):
        value = None if value is None else value[part]
    return value
