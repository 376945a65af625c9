"""Fine-tuning: a run that starts from the weights of another model, with some layers frozen."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from flowers_jax import keras_weights, models
from flowers_jax.errors import UserError

Variables = dict[str, Any]


def load(path: str | Path, model_name: str) -> Variables:
    """Variables of the architecture from a file of Keras or a `.msgpack` of `convert_weights.py`.

    Raises:
      UserError: the file cannot be read, or is of another architecture.
    """
    path = Path(path).expanduser()
    if path.suffix != ".msgpack":
        return keras_weights.from_keras(path, model_name)
    try:
        return flax.serialization.msgpack_restore(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged or no file of convert_weights.py.") from error


def initialise(
    variables: Variables, path: str | Path, model_name: str, num_classes: int
) -> Variables:
    """`variables` with the values of a file; the classifiers keep theirs if the classes differ.

    Args:
      variables: of the model as it is initialised.
      path: see `load`.
      model_name: one of `models.MODELS`.
      num_classes: of `variables`.

    Raises:
      UserError: see `load`; or a shape is not that of the model, for instance because the file's
        network was trained on images of another size.
    """
    loaded = flax.traverse_util.flatten_dict(load(path, model_name))
    ours = flax.traverse_util.flatten_dict(dict(variables))
    classifier = _classifier(model_name)
    result = {}
    for key, value in ours.items():
        if key not in loaded:
            raise UserError(f"{path} has no weights for layer {'/'.join(key[1:-1])}.")
        if loaded[key].shape == value.shape:
            result[key] = jnp.asarray(loaded[key], value.dtype)
        elif key in classifier and loaded[key].shape[-1] != num_classes:
            result[key] = value
        else:
            raise UserError(
                f"layer {'/'.join(key[1:-1])} of {path} has a {key[-1]} of shape "
                f"{loaded[key].shape}, but the model's is of shape {value.shape}; an image size "
                "other than that of the file's network makes such a difference."
            )
    # A classifier is taken over or initialised as a whole.
    begun_anew = {key[:-1] for key in classifier if result[key] is ours[key]}
    result |= {key: ours[key] for key in classifier if key[:-1] in begun_anew}
    return flax.traverse_util.unflatten_dict(result)


def _classifier(model_name: str) -> set[tuple[str, ...]]:
    """The variables whose shape depends on the number of classes."""

    def shapes(num_classes: int) -> dict[tuple[str, ...], tuple[int, ...]]:
        model = models.create_model(model_name, num_classes)
        images = jnp.zeros((1, 224, 224, 3))
        tree = jax.eval_shape(model.init, jax.random.key(0), images)
        return {k: leaf.shape for k, leaf in flax.traverse_util.flatten_dict(tree).items()}

    one, two = shapes(1), shapes(2)
    return {key for key in one if one[key] != two[key]}


def num_classes(variables: Variables, model_name: str) -> int:
    """How many classes the classifier of these variables has."""
    flat = flax.traverse_util.flatten_dict(dict(variables))
    return flat[min(_classifier(model_name))].shape[-1]


def is_frozen(layer: Sequence[str], patterns: Sequence[str]) -> bool:
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


def unknown_patterns(model_name: str, patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The patterns that match no layer of the architecture, and the names that there are."""
    model = models.create_model(model_name)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    paths = [key[:-1] for key in flax.traverse_util.flatten_dict(tree["params"])]
    unknown = [p for p in patterns if not any(is_frozen(path, [p]) for path in paths)]
    return unknown, list(dict.fromkeys(path[0] for path in paths))
