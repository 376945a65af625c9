"""Checks a config before any data is read, and names everything that is wrong at once."""

import difflib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from flowers_jax import models, optimizers, replicas, results, transfer
from flowers_jax.data import augment, feed, folder, pipeline, sources
from flowers_jax.errors import UserError
from flowers_jax.losses import LOSSES

# What a value must be: None if it is so, otherwise the end of the sentence 'KEY=VALUE ...'.
Rule = Callable[[object], str | None]


def choice(*names: str) -> Rule:
    """One of these names."""
    return lambda value: None if value in names else f"is not one of {', '.join(names)}"


def kind(*types: type, name: str) -> Rule:
    """An instance of exactly one of these types: True is no number."""
    return lambda value: None if type(value) in types else f"is not {name}"


def number(*, above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> Rule:
    """A finite number in these bounds."""

    def rule(value: object) -> str | None:
        if type(value) not in (int, float) or not math.isfinite(value):
            return "is not a number"
        if value < least:
            return f"must not be less than {least:g}"
        if value <= above:
            return f"must be greater than {above:g}"
        return None if value < below else f"must be less than {below:g}"

    return rule


def integer(least: int) -> Rule:
    """A whole number of at least `least`."""

    def rule(value: object) -> str | None:
        return "is not an integer" if type(value) is not int else number(least=least)(value)

    return rule


def optional(rule: Rule) -> Rule:
    """As the rule says, or None."""
    return lambda value: None if value is None else rule(value)


TEXT = kind(str, name="text")
FLAG = kind(bool, name="True or False")
GROUP = kind(ConfigDict, name="a group of settings")
RULES: dict[str, Rule] = {
    "study_run": TEXT,
    "workdir": optional(TEXT),
    "seed": integer(0),
    "num_replicas": integer(1),
    "model": choice(*models.MODELS),
    "image_size": integer(1),
    "num_classes": optional(integer(2)),
    "input_scaling": choice(*augment.SCALINGS),
    "dtype": choice("float32", "bfloat16"),
    "init_from": optional(TEXT),
    "frozen": kind(tuple, list, name="a tuple of names"),
    "data": GROUP,
    "data.source": choice(*sources.SOURCES),
    "data.dir": optional(TEXT),
    "data.split": choice(*folder.SPLITS),
    "data.validation_fraction": number(above=0, below=1),
    "data.holdout_per_class": integer(1),
    "data.split_seed": integer(0),
    "data.leaked": integer(0),
    "data.resize": choice(*pipeline.RESIZES),
    "data.on_bad_image": choice("error", "skip"),
    "data.cache": choice(*feed.CACHES),
    "data.augment": optional(GROUP),
    "batch_size": integer(1),
    "max_epochs": integer(1),
    "loss": choice(*LOSSES),
    "aux_weight": optional(number(least=0)),
    "on_non_finite": choice("stop", "skip_step", "ignore"),
    "optimizer": GROUP,
    "optimizer.name": choice(*optimizers.OPTIMIZERS),
    "optimizer.learning_rate": number(above=0),
    "optimizer.schedule": TEXT,
    "optimizer.schedule_args": GROUP,
    "optimizer.beta_1": number(least=0, below=1),
    "optimizer.beta_2": number(least=0, below=1),
    "optimizer.rho": number(least=0, below=1),
    "optimizer.initial_accumulator_value": number(least=0),
    "optimizer.momentum": number(least=0, below=1),
    "optimizer.epsilon": number(above=0),
    "early_stopping": optional(GROUP),
    "checkpoint": GROUP,
    "checkpoint.every_minutes": number(least=0),
}
# Of groups that may be None.
AUGMENT_RULES: dict[str, Rule] = {
    "data.augment.rotation_degrees": number(least=0),
    "data.augment.zoom": number(least=0, below=1),
    "data.augment.horizontal_flip": FLAG,
    "data.augment.vertical_flip": FLAG,
}
EARLY_STOPPING_RULES: dict[str, Rule] = {
    "early_stopping.monitor": TEXT,
    "early_stopping.mode": choice("max", "min"),
    "early_stopping.patience": integer(1),
    "early_stopping.min_delta": number(least=0),
    "early_stopping.restore_best_weights": FLAG,
}


def check(config: ConfigDict) -> None:
    """Raises UserError naming every setting of `config` that cannot be used."""
    # Combinations are looked at only where each value can be used.
    faults = list(_single_faults(config)) or list(_combined_faults(config))
    if faults:
        raise UserError("these settings cannot be used: " + "; ".join(faults) + ".")


def _single_faults(config: ConfigDict) -> Iterator[str]:
    values = dict(_flatten(config))
    rules = dict(RULES)
    if values.get("data.augment") is not None:
        rules |= AUGMENT_RULES
    if values.get("early_stopping") is not None:
        rules |= EARLY_STOPPING_RULES
    for key in values.keys() - rules.keys():
        near = difflib.get_close_matches(key, rules, n=1)
        yield f"there is no setting {key}" + (f", did you mean {near[0]}?" if near else "")
    for key, rule in rules.items():
        fault = rule(values[key]) if key in values else "is missing"
        if fault:
            shown = f"{key}={values[key]!r}" if key in values else key
            yield f"{shown} {fault}"


def _flatten(config: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted keys with their values, groups included; a schedule's arguments are optax' affair."""
    for key, value in config.items():
        yield prefix + key, value
        if isinstance(value, ConfigDict) and prefix + key != "optimizer.schedule_args":
            yield from _flatten(value, f"{prefix}{key}.")


def _combined_faults(config: ConfigDict) -> Iterator[str]:
    if jax.process_count() > 1 and config.data.cache not in ("auto", "device"):
        yield f"data.cache={config.data.cache!r} needs a single process; several need 'device'"
    if jax.process_count() > 1 and config.num_replicas > 1:
        yield f"num_replicas={config.num_replicas} needs a single process"
    if config.num_replicas > 1 and replicas.are_mapped() and not replicas.CAN_MAP:
        yield (
            f"num_replicas={config.num_replicas} needs jax 0.8 on GPU and TPU, "
            f"this is {jax.__version__}"
        )
    heads = models.head_names(models.create_model(config.model))
    if config.data.leaked and config.data.split != "holdout":
        yield f"data.leaked={config.data.leaked} needs data.split='holdout'"
    devices = jax.device_count()
    if config.batch_size % devices:
        yield (
            f"batch_size={config.batch_size} cannot be divided among {devices} devices; "
            f"choose a multiple of {devices}"
        )
    if config.early_stopping is not None:
        columns = results.metric_columns(heads)
        if config.early_stopping.monitor not in columns:
            yield (
                f"early_stopping.monitor={config.early_stopping.monitor!r} is not logged; "
                f"{config.model} logs {', '.join(columns)}"
            )
    if heads and config.aux_weight is None:
        yield f"aux_weight is not set, and {config.model} has the heads {', '.join(heads)}"
    if not heads and config.aux_weight is not None:
        yield f"aux_weight={config.aux_weight}, but {config.model} has no auxiliary heads"
    try:
        optimizers.create_optimizer(config.optimizer)
    except UserError as error:
        yield str(error).rstrip(".")
    if config.init_from and not Path(config.init_from).expanduser().is_file():
        yield f"init_from={config.init_from!r} is no file"
    unknown, names = transfer.unknown_patterns(config.model, config.frozen)
    if unknown:
        yield (
            f"frozen={', '.join(unknown)} matches no layer; {config.model} has {', '.join(names)}"
        )
    if _too_small(config):
        yield f"image_size={config.image_size} is too small for {config.model}"


def _too_small(config: ConfigDict) -> bool:
    """Whether an image is pooled away before it reaches the classifier."""
    model = models.create_model(config.model)
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    try:
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
    except (ValueError, TypeError, ZeroDivisionError):
        return True
    return any(0 in leaf.shape for leaf in jax.tree.leaves(variables))
