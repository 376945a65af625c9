"""All settings of a run: default, and the rule that a value must fulfil, beside each other.

`check` names everything that is wrong with a config, before any data is read.
"""

import dataclasses
import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from flowers_jax import faults, models, optimizers, rules
from flowers_jax.data import augment, batches, decode, scaling, sources, splits
from flowers_jax.losses import LOSSES
from flowers_jax.process.errors import UserError
from flowers_jax.rules import FLAG, GROUP, TEXT, Rule, choice, integer, number


@dataclasses.dataclass(frozen=True)
class Setting:
    """The default of a setting and the rule for its value.

    Attributes:
      default: its value in a config that does not mention it.
      rule: what any value must fulfil.
      optional: the type of its values if None is one of them.
    """

    default: Any
    rule: Rule
    optional: type | None = None

    def fault(self, value: Any) -> str | None:  # noqa: ANN401
        """What is wrong with a value."""
        return None if value is None and self.optional else self.rule(value)


SETTINGS: dict[str, Setting] = {
    # The run of the study whose curves are drawn behind ours; "" for none.
    "study_run": Setting("", TEXT),
    "workdir": Setting(None, TEXT, str),
    "seed": Setting(0, integer(0, below=2**32)),  # the PRNG takes 32 bits
    # Model
    "model": Setting("base_cnn", choice(models.MODELS)),
    "model_args": Setting({}, GROUP),  # further arguments of the model, such as last_kernel
    "image_size": Setting(150, integer(1)),
    "num_classes": Setting(None, integer(2), int),  # by default that of the data
    "input_scaling": Setting("-1_1", choice(scaling.SCALINGS)),
    "dtype": Setting("float32", choice(("float32", "bfloat16"))),
    "init_from": Setting(None, TEXT, str),  # a run folder, or a weights file of Keras
    "frozen": Setting((), rules.names),  # of layers, as "block1_*"
    # Data
    "data": Setting({}, GROUP),
    "data.source": Setting("auto", choice(sources.SOURCES)),
    "data.dir": Setting(None, TEXT, str),
    "data.split": Setting("keras", choice(splits.SPLITS)),
    "data.validation_fraction": Setting(0.2, number(above=0, below=1)),
    "data.holdout_per_class": Setting(80, integer(1)),
    "data.test_fraction": Setting(0.0, number(least=0, below=1)),  # of 'stratified', as the next
    "data.num_folds": Setting(None, integer(2), int),  # instead of validation_fraction
    "data.fold": Setting(0, integer(0)),  # which of them validates
    "data.group_duplicates": Setting(False, FLAG),  # never in two splits
    "data.split_seed": Setting(1337, integer(0, below=2**32)),
    "data.leaked": Setting(0, integer(0)),  # held-out images that are trained on too
    "data.resize": Setting("bilinear", choice(decode.RESIZES)),
    "data.on_bad_image": Setting("error", choice(("error", "skip"))),
    "data.exif_orientation": Setting(False, FLAG),  # whether images are turned; Keras ignores it
    "data.cache": Setting("auto", choice(batches.CACHES)),  # where decoded images are kept
    "data.augment": Setting(None, GROUP, ConfigDict),
    # Training
    "batch_size": Setting(32, integer(1)),
    "max_epochs": Setting(150, integer(1)),
    "loss": Setting("cross_entropy", choice(LOSSES)),
    # Of GoogLeNet's auxiliary heads: 1.0 in the study, 0.3 in the paper.
    "aux_weight": Setting(None, number(least=0), float),
    "class_weights": Setting(None, rules.class_weights, object),  # 'balanced', or one per class
    "eval_tta": Setting(False, FLAG),  # averages over the flips of data.augment where it evaluates
    "optimizer": Setting({}, GROUP),
    "optimizer.name": Setting("adam", choice(optimizers.OPTIMIZERS)),
    "optimizer.learning_rate": Setting(0.001, number(above=0)),
    "optimizer.schedule": Setting("constant", choice(optimizers.SCHEDULES)),
    "optimizer.schedule_args": Setting({}, GROUP),
    "early_stopping": Setting({}, GROUP, ConfigDict),
    "early_stopping.monitor": Setting("val_accuracy", TEXT),
    "early_stopping.mode": Setting("max", choice(("max", "min"))),
    "early_stopping.patience": Setting(10, integer(1)),
    "early_stopping.min_delta": Setting(0.0, number(least=0)),
    "early_stopping.restore_best_weights": Setting(True, FLAG),
    # A step whose loss or gradient is not finite ends the run ('stop'), changes nothing
    # ('skip_step') or is taken as it is ('ignore').
    "on_non_finite": Setting("stop", choice(("stop", "skip_step", "ignore"))),
    "deterministic": Setting(False, FLAG),  # repeatable kernels on a GPU, perhaps slower
    "checkpoint": Setting({}, GROUP),
    "checkpoint.every_minutes": Setting(5.0, number(least=0)),
}
# Groups whose keys are arguments of a model or a schedule.
OPEN_GROUPS = ("model_args", "optimizer.schedule_args")


def all_settings() -> dict[str, Setting]:
    """`SETTINGS`, and the arguments of optimizers and augmentations.

    An optimizer's argument is None where it is the optimizer's own default.
    """
    found = dict(SETTINGS)
    for optimizer in optimizers.OPTIMIZERS:
        for name, default in optimizers.arguments(optimizer).items():
            rule = rules.of_argument(name, default)
            found[f"optimizer.{name}"] = Setting(None, rule, type(default))
    for augmentation in augment.AUGMENTATIONS:
        for name, default in augment.arguments(augmentation).items():
            found[f"data.augment.{name}"] = Setting(default, rules.of_argument(name, default))
    return found


def default_config() -> ConfigDict:
    """The study's settings: 150 px, batch 32, Adam, Keras' split with seed 1337."""
    return complete(ConfigDict(type_safe=False))  # `check` names values of the wrong type


def complete(config: ConfigDict) -> ConfigDict:
    """A copy of `config` that has the default of every setting it does not mention."""
    config = config.copy_and_resolve_references().unlock()
    for key, setting in all_settings().items():
        *path, last = key.split(".")
        group = config
        for name in path:
            group = group.get(name) if isinstance(group, ConfigDict) else None
        if not isinstance(group, ConfigDict) or last in group:
            continue  # the group is None, or not a group, which `check` tells
        default = setting.default
        if default is None:
            default = config_dict.placeholder(setting.optional)
        group[last] = default
    return config


def from_json(stored: Mapping[str, Any]) -> ConfigDict:
    """The settings in a run's `config.json`, also as earlier versions wrote it."""
    stored = {key: value for key, value in stored.items() if key != "num_replicas"}
    if stored.get("model") in VARIANTS:
        stored["model"], stored["model_args"] = "base_cnn", VARIANTS[stored["model"]]
    return _with_own_arguments(complete(ConfigDict(stored, type_safe=False)))


# Names that version 0.1 had for `base_cnn` with arguments.
VARIANTS: dict[str, dict[str, Any]] = {
    "base_cnn_conv5x5": {"last_kernel": 5},
    "base_cnn_batchnorm": {"batch_norm": True},
    "base_cnn_gap": {"global_pool": True},
    "base_cnn_conv5x5_gap": {"last_kernel": 5, "global_pool": True},
    "base_cnn_conv5x5_gap_batchnorm": {"last_kernel": 5, "global_pool": True, "batch_norm": True},
}


def _with_own_arguments(config: ConfigDict) -> ConfigDict:
    """`config` with all arguments of its optimizer, and none of another (as version 0.1 had)."""
    group = config.optimizer
    if group.name in optimizers.OPTIMIZERS:
        own = optimizers.arguments(group.name)
        for key in [key for key in group if optimizers.is_argument(key)]:
            group[key] = own.get(key) if group[key] is None or key not in own else group[key]
    return config


def check(config: ConfigDict) -> ConfigDict:
    """`config` with the defaults of what it leaves out, and with values that JSON can hold.

    Raises:
      UserError: naming every setting that cannot be used.
    """
    if type(config) is not ConfigDict:
        raise UserError(f"the config is a {type(config).__name__}; take default_config().")
    config = complete(config)
    _make_plain(config)
    # Combinations are looked at only where each value can be used.
    found = list(_single_faults(config, all_settings())) or list(faults.of_combinations(config))
    if found:
        sentence = f"these settings cannot be used: {'; '.join(found)}"
        raise UserError(sentence if sentence.endswith("?") else f"{sentence}.")
    return _with_own_arguments(config)


def _make_plain(config: ConfigDict) -> None:
    """Paths become text, and numbers and arrays of NumPy those of Python."""
    with config.ignore_type():
        for key, value in config.items():
            if isinstance(value, ConfigDict):
                _make_plain(value)
            elif isinstance(value, Path):
                config[key] = str(value)
            elif isinstance(value, np.generic | np.ndarray):
                config[key] = value.tolist()


def _single_faults(
    config: ConfigDict, settings: Mapping[str, Setting], prefix: str = ""
) -> Iterator[str]:
    for name, value in config.items():
        key = f"{prefix}{name}"
        is_group = isinstance(value, ConfigDict)
        if key not in settings:
            yield f"there is no setting {key}{_instead(key, settings)}"
        elif fault := settings[key].fault(value):
            yield f"{key}={value.to_dict() if is_group else value!r} {fault}"
        elif is_group and key not in OPEN_GROUPS:
            yield from _single_faults(value, settings, f"{key}.")


def _instead(key: str, known: Collection[str]) -> str:
    """The setting that an unknown one may stand for, else those that its group has."""
    group, dot, last = key.rpartition(".")
    leaves = {name: name.rpartition(".")[2] for name in known}
    own = [leaf for name, leaf in leaves.items() if name == f"{group}{dot}{leaf}"]
    found = [f"{group}{dot}{leaf}" for leaf in difflib.get_close_matches(last, own, n=1)]
    for name, leaf in leaves.items():  # in another group, or by its initials, as lr
        if last in (leaf, "".join(word[:1] for word in leaf.split("_"))):
            found.append(name)
    return f", did you mean {found[0]}?" if found else f"; there are {', '.join(own)}"
