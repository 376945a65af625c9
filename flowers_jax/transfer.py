"""Fine-tuning: a run that starts from the weights of another model, with some layers frozen."""

import logging
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from flowers_jax import keras_weights, models
from flowers_jax.models import TreePath, Variables
from flowers_jax.process.errors import UserError

log = logging.getLogger(__name__)


def load(path: str | Path, model_name: str) -> Variables:
    """Variables of an architecture, from a file of Keras or a `.msgpack` of `convert_weights.py`.

    Raises:
      UserError: the file cannot be read, or belongs to another architecture.
    """
    path = Path(path).expanduser()
    if path.suffix != ".msgpack":
        return keras_weights.from_keras(path, model_name)
    try:
        return flax.serialization.msgpack_restore(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or was not written by convert_weights.py.") from error


def initialise(
    variables: Variables, loaded: Variables, classifier: Iterable[TreePath], source: str
) -> Variables:
    """`variables` with the values of `loaded`; the classifiers keep theirs if the classes differ.

    Args:
      variables: of the model as it is initialised.
      loaded: variables of the same architecture.
      classifier: the variables whose shape depends on the number of classes, see `models.shapes`.
      source: where `loaded` comes from, for messages.

    Raises:
      UserError: a layer is missing, or a shape is not that of the model, for instance because the
        other network was trained on images of another size.
    """
    theirs = flax.traverse_util.flatten_dict(loaded)
    ours = flax.traverse_util.flatten_dict(variables)
    # A classifier is taken over or initialised as a whole.
    kept = {
        path[:-1]
        for path in classifier
        if path in theirs and theirs[path].shape[-1] != ours[path].shape[-1]
    }
    for layer in sorted({"/".join(path[1:]) for path in kept}):
        log.info("the classifier %s begins anew: %s has other classes", layer, source)
    result = {}
    for path, value in ours.items():
        layer = "/".join(path[1:-1])
        if path not in theirs:
            raise UserError(f"{source} has no weights for layer {layer}.")
        if path[:-1] in kept:
            result[path] = value
        elif theirs[path].shape == value.shape:
            result[path] = jnp.asarray(theirs[path], value.dtype)
        else:
            raise UserError(
                f"layer {layer} of {source} has a {path[-1]} of shape "
                f"{theirs[path].shape}, but the model's is of shape {value.shape}; an image size "
                "other than that of the file's network makes such a difference."
            )
    return flax.traverse_util.unflatten_dict(result)


def num_classes(variables: Variables, model_name: str) -> int:
    """How many classes the classifier of these variables has."""
    flat = flax.traverse_util.flatten_dict(variables)
    classifier = models.shapes(models.create_model(model_name), 224).classifier
    return flat[min(classifier)].shape[-1]


def is_frozen(layer: TreePath, patterns: Sequence[str]) -> bool:
    """Whether the layer at this path (or a module it lies in) has one of the names.

    Args:
      layer: for instance `("inception_3a", "conv_1x1")`.
      patterns: names like `block1_conv1`, `inception_3a/conv_1x1`, `block*`.
    """
    names = ["/".join(layer[:end]) for end in range(1, len(layer) + 1)]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def frozen_mask(params: Variables, patterns: Sequence[str]) -> Variables:
    """A tree like `params` that is True where a parameter's layer is frozen."""
    flat = flax.traverse_util.flatten_dict(params)
    return flax.traverse_util.unflatten_dict({k: is_frozen(k[:-1], patterns) for k in flat})


def freeze_optimizer(
    optimizer: optax.GradientTransformation, patterns: Sequence[str]
) -> optax.GradientTransformation:
    """An optimizer that leaves frozen layers alone and keeps no state for them."""

    def labels(params: Variables) -> Variables:
        return jax.tree.map(
            lambda frozen: "frozen" if frozen else "trained", frozen_mask(params, patterns)
        )

    return optax.multi_transform({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def stop_gradients(params: Variables, patterns: Sequence[str]) -> Variables:
    """`params`, through whose frozen layers' weights no gradient is computed."""
    return jax.tree.map(
        lambda leaf, frozen: jax.lax.stop_gradient(leaf) if frozen else leaf,
        params,
        frozen_mask(params, patterns),
    )


def inference_where_frozen(patterns: Sequence[str]) -> Callable[..., Any]:
    """An interceptor for `nn.intercept_methods`.

    A frozen batch normalisation uses its running statistics and keeps them, as in Keras.
    """

    def intercept(call: Any, arguments: Any, options: Any, context: Any) -> Any:  # noqa: ANN401
        module = context.module
        if isinstance(module, nn.BatchNorm) and is_frozen(module.path, patterns):
            options = {**options, "use_running_average": True}
        return call(*arguments, **options)

    return intercept


def matches(layers: Iterable[TreePath], pattern: str) -> bool:
    """Whether any of these layers has the name."""
    return any(is_frozen(layer, [pattern]) for layer in layers)
