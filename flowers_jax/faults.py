"""Settings that cannot be used together, in words."""

from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from flowers_jax import metrics, models, optimizers, rules, transfer
from flowers_jax.data import augment
from flowers_jax.models.layers import Classifier, ImageTooSmall
from flowers_jax.process import distributed
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files


def of_combinations(config: ConfigDict) -> Iterator[str]:
    """What is wrong with settings of which each by itself can be used."""
    if distributed.is_joined() and config.data.cache not in ("auto", "device"):
        yield f"data.cache={config.data.cache!r} needs a single process; several need 'device'"
    yield from _faults_of_split(config.data)
    if config.eval_tta and augment.views(config.data.augment) == ((),):
        yield "eval_tta=True needs data.augment with a flip, to average over"
    taken = optimizers.arguments(config.optimizer.name)
    for key, value in config.optimizer.items():
        if optimizers.is_argument(key) and value is not None and key not in taken:
            yield f"optimizer.{key}={value!r}: {config.optimizer.name} takes {', '.join(taken)}"
    try:
        optimizers.create_optimizer(config.optimizer)
    except UserError as error:
        yield str(error).rstrip(".")
    if config.init_from:
        yield from _faults_of_source(config)
    yield from _faults_of_model(config)


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
        stored = files.read_json(source / "config.json")
        if stored.get("model") != config.model:
            yield (
                f"init_from={config.init_from!r} is a run of {stored.get('model')}, and "
                f"model={config.model!r}"
            )
    elif not source.is_file():
        yield f"init_from={config.init_from!r} is neither a file nor a run folder"


def _faults_of_model(config: ConfigDict) -> Iterator[str]:
    """The model's, its arguments' and those of what depends on its heads and layers."""
    lacks = models.defects(config.model)
    if lacks:
        yield f"the model {config.model} {' and '.join(lacks)}, see flowers_jax/models/__init__.py"
        return
    try:
        model = models.of_config(config, config.num_classes or 2)
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


def _mistyped_arguments(config: ConfigDict, model: Classifier) -> Iterator[str]:
    defaults = type(model)(num_classes=2)
    for name, value in config.model_args.items():
        default = getattr(defaults, name)
        if type(default) in (int, float, bool, str):
            is_integer = type(default) is int and name not in rules.ARGUMENTS
            rule = rules.INTEGER if is_integer else rules.of_argument(name, default)
            fault = rule(value)
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
