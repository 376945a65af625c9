"""All settings of a run: default, and the rule that a value must fulfil, beside each other.

`check` names everything that is wrong with a config, before any data is read.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, config_dict

from flowers_jax import metrics, models, optimizers, transfer
from flowers_jax.data import augment, batches, decode, scaling, sources, splits
from flowers_jax.losses import LOSSES
from flowers_jax.models.layers import Classifier, ImageTooSmall
from flowers_jax.process.errors import UserError

# What is wrong with a value, as the end of the sentence 'KEY=VALUE ...'; None if nothing is.
Rule = Callable[[Any], str | None]


def choice(names: Collection[str]) -> Rule:
    """One of these names, or of the entries that a table has when the value is checked."""
    return lambda value: (
        None if isinstance(value, str) and value in names else f"is not one of {', '.join(names)}"
    )


def kind(*types: type, name: str) -> Rule:
    """An instance of exactly one of these types: bool is not accepted as a number."""
    return lambda value: None if type(value) in types else f"is not {name}"


def number(*, above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> Rule:
    """A finite number in these bounds."""

    def rule(value: Any) -> str | None:  # noqa: ANN401
        if type(value) not in (int, float) or not math.isfinite(value):
            return "is not a number"
        if value < least:
            return f"must not be less than {least:g}"
        if value <= above:
            return f"must be greater than {above:g}"
        return None if value < below else f"must be less than {below:g}"

    return rule


def integer(least: int, below: float = math.inf) -> Rule:
    """A whole number in these bounds."""
    bounds = number(least=least, below=below)
    return lambda value: "is not an integer" if type(value) is not int else bounds(value)


def class_weights(value: Any) -> str | None:  # noqa: ANN401
    """'balanced', or a positive number for each class."""
    positive = number(above=0)
    if value == "balanced" or (
        type(value) in (tuple, list) and value and not any(positive(v) for v in value)
    ):
        return None
    return "is neither 'balanced' nor a tuple of numbers above 0"


def names(value: Any) -> str | None:  # noqa: ANN401
    """A tuple or list of text."""
    is_list = type(value) in (tuple, list) and all(isinstance(name, str) for name in value)
    return None if is_list else "is not a tuple of names"


TEXT = kind(str, name="text")
FLAG = kind(bool, name="True or False")
GROUP = kind(ConfigDict, name="a group of settings")


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
    "frozen": Setting((), names),  # of layers, as "block1_*"
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
    "class_weights": Setting(None, class_weights, object),  # 'balanced', or one per class
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
# Of arguments of models, optimizers and augmentations; others take any value of their default's
# type.
RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("beta_1", "beta_2", "rho", "momentum", "zoom", "conv_dropout"), number(least=0, below=1)
    ),
    "last_kernel": integer(1),
    **dict.fromkeys(
        ("initial_accumulator_value", "weight_decay", "rotation_degrees"), number(least=0)
    ),
    "epsilon": number(above=0),
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
            rule = RULES.get(name, _like(default))
            found[f"optimizer.{name}"] = Setting(None, rule, type(default))
    for augmentation in augment.AUGMENTATIONS:
        for name, default in augment.arguments(augmentation).items():
            found[f"data.augment.{name}"] = Setting(default, RULES.get(name, _like(default)))
    return found


def _like(default: Any) -> Rule:  # noqa: ANN401
    if type(default) in (int, float):
        return number()
    return FLAG if type(default) is bool else kind(type(default), name=type(default).__name__)


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
        for key in [key for key in group if _is_argument(key)]:
            group[key] = own.get(key) if group[key] is None or key not in own else group[key]
    return config


def _is_argument(key: str) -> bool:
    """Whether the key of the group `optimizer` is an argument of some optimizer."""
    return any(key in optimizers.arguments(name) for name in optimizers.OPTIMIZERS)


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
    faults = list(_single_faults(config)) or list(_combined_faults(config))
    if faults:
        sentence = f"these settings cannot be used: {'; '.join(faults)}"
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


def _single_faults(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    settings = all_settings()
    for name, value in config.items():
        key = f"{prefix}{name}"
        is_group = isinstance(value, ConfigDict)
        if key not in settings:
            yield f"there is no setting {key}{_instead(key, settings)}"
        elif fault := settings[key].fault(value):
            yield f"{key}={value.to_dict() if is_group else value!r} {fault}"
        elif is_group and key not in OPEN_GROUPS:
            yield from _single_faults(value, f"{key}.")


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


def _combined_faults(config: ConfigDict) -> Iterator[str]:
    if jax.process_count() > 1 and config.data.cache not in ("auto", "device"):
        yield f"data.cache={config.data.cache!r} needs a single process; several need 'device'"
    yield from _faults_of_split(config.data)
    if config.eval_tta and augment.views(config.data.augment) == ((),):
        yield "eval_tta=True needs data.augment with a flip, to average over"
    taken = optimizers.arguments(config.optimizer.name)
    for key, value in config.optimizer.items():
        if _is_argument(key) and value is not None and key not in taken:
            yield f"optimizer.{key}={value!r}: {config.optimizer.name} takes {', '.join(taken)}"
    try:
        optimizers.create_optimizer(config.optimizer)
    except UserError as error:
        yield str(error).rstrip(".")
    if config.init_from:
        yield from _faults_of_source(config)
    lacks = models.defects(config.model)
    if lacks:
        yield f"the model {config.model} {' and '.join(lacks)}, see flowers_jax/models/__init__.py"
        return
    try:
        model = create_model(config, config.num_classes or 2)
    except UserError as error:
        yield str(error).rstrip(".")
        return
    mistyped = list(_mistyped_arguments(config, model))
    if mistyped:
        yield from mistyped
        return
    yield from _faults_of_heads(config, model.HEADS)
    try:
        layers = models.shapes(model, config.image_size).layers
    except UserError as error:
        yield str(error).rstrip(".")
        return
    except ImageTooSmall:
        yield (
            f"image_size={config.image_size} is too small for {config.model}; "
            f"it needs at least {least_image_size(model, config.image_size)}"
        )
        return
    unknown = [name for name in config.frozen if not transfer.matches(layers, name)]
    if unknown:
        names = ", ".join(dict.fromkeys(layer[0] for layer in layers))
        yield f"frozen={', '.join(unknown)} matches no layer; {config.model} has {names}"
    if config.frozen and all(transfer.is_frozen(layer, config.frozen) for layer in layers):
        yield f"frozen={', '.join(config.frozen)} leaves no layer to train"


def _faults_of_split(data: ConfigDict) -> Iterator[str]:
    if data.leaked and data.split != "holdout":
        yield f"data.leaked={data.leaked} needs data.split='holdout'"
    for key in ("test_fraction", "num_folds", "group_duplicates"):
        if data[key] and data.split != "stratified":
            yield f"data.{key}={data[key]} needs data.split='stratified'"
    if data.fold >= (data.num_folds or 1):
        what = f"the folds are 0 to {data.num_folds - 1}" if data.num_folds else "needs num_folds"
        yield f"data.fold={data.fold} does not exist; {what}"
    if data.num_folds is None and data.validation_fraction + data.test_fraction >= 1:
        yield (
            f"data.validation_fraction={data.validation_fraction} and data.test_fraction="
            f"{data.test_fraction} leave no training images"
        )


def _faults_of_source(config: ConfigDict) -> Iterator[str]:
    source = Path(config.init_from).expanduser()
    if (source / "config.json").is_file():
        stored = json.loads((source / "config.json").read_text("utf-8"))
        if stored.get("model") != config.model:
            yield (
                f"init_from={config.init_from!r} is a run of {stored.get('model')}, and "
                f"model={config.model!r}"
            )
    elif not source.is_file():
        yield f"init_from={config.init_from!r} is neither a file nor a run folder"


def create_model(config: ConfigDict, num_classes: int) -> Classifier:
    """The architecture that `config` describes."""
    dtype = jnp.dtype(config.dtype)
    return models.create_model(config.model, num_classes, dtype, **config.model_args)


def _mistyped_arguments(config: ConfigDict, model: Classifier) -> Iterator[str]:
    defaults = type(model)(num_classes=2)
    for name, value in config.model_args.items():
        default = getattr(defaults, name)
        if type(default) in (int, float, bool, str):
            like = kind(int, name="an integer") if type(default) is int else _like(default)
            fault = RULES.get(name, like)(value)
            if fault:
                yield f"model_args.{name}={value!r} {fault}"


def _faults_of_heads(config: ConfigDict, heads: tuple[str, ...]) -> Iterator[str]:
    stop = config.early_stopping
    if stop is not None and stop.monitor not in metrics.columns(heads):
        yield (
            f"early_stopping.monitor={stop.monitor!r} is not logged; "
            f"{config.model} logs {', '.join(metrics.columns(heads))}"
        )
    if len(heads) > 1 and config.aux_weight is None:
        yield f"aux_weight is not set, and {config.model} has the heads {', '.join(heads)}"
    if len(heads) == 1 and config.aux_weight is not None:
        yield f"aux_weight={config.aux_weight}, but {config.model} has no auxiliary heads"


def least_image_size(model: Classifier, too_small: int) -> int:
    """The smallest image size that reaches the classifier, above one that does not."""
    low, high = too_small, 2 * too_small
    while not _reaches(model, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _reaches(model, middle) else (middle, high)
    return high


def _reaches(model: Classifier, image_size: int) -> bool:
    try:
        models.shapes(model, image_size)
    except ImageTooSmall:
        return False
    return True
