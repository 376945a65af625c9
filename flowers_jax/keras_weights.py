"""Weights from Keras and back, for the study's architectures and `keras.applications.VGG16`.

Layers correspond by their order among the layers of their kind: in Keras the order of creation
(the numbers of automatic names) or else that of the model, in Flax that of the forward pass. Files
are read with h5py: nothing in them is executed, and Keras need not be installed.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax
import h5py
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flowers_jax import models
from flowers_jax.models import TreePath, Variables
from flowers_jax.process.errors import UserError

if TYPE_CHECKING:
    import keras

# A layer of Keras: its name, and its weights in Keras' order.
Weights = tuple[str, Sequence[np.ndarray]]

# In Keras' order, by kind of layer: collection and name of each weight in Flax.
WEIGHTS = {
    "convolution": (("params", "kernel"), ("params", "bias")),
    "dense layer": (("params", "kernel"), ("params", "bias")),
    "batch normalisation": (
        ("params", "scale"),
        ("params", "bias"),
        ("batch_stats", "mean"),
        ("batch_stats", "var"),
    ),
}
FLAX_KINDS = {nn.Conv: "convolution", nn.Dense: "dense layer", nn.BatchNorm: "batch normalisation"}


def from_keras(source: "keras.Model | str | Path", model_name: str) -> Variables:
    """Flax variables with the weights of a Keras model.

    Args:
      source: the model, or a `.keras`, `.h5` or `.weights.h5` file, of Keras 2 or 3.
      model_name: the architecture, one of `models.MODELS`. The number of classes and the image
        size are those of the source.

    Returns:
      `params`, and `batch_stats` if the architecture has batch normalisation; float32.

    Raises:
      UserError: the file cannot be read, or a layer is not that of the architecture.
    """
    if isinstance(source, str | Path):
        name, keras_layers = str(source), _read(Path(source))
    else:
        name, keras_layers = f"the Keras model {source.name!r}", list(_keras_layers(source))
    theirs = _by_kind(name, keras_layers)
    num_classes = theirs["dense layer"][-1][1][0].shape[-1] if theirs["dense layer"] else 1
    ours, expected = _flax_layers(model_name, num_classes)
    flat = {}
    for (path, flax_names), (layer, arrays) in _pairs(name, theirs, model_name, ours):
        for (collection, weight), array in zip(flax_names, arrays, strict=True):
            key = (collection, *path, weight)
            if not _fits(array.shape, expected[key]):
                raise UserError(
                    f"layer {layer!r} of {name} has a {weight} of shape {array.shape}, but layer "
                    f"{'/'.join(path)} of {model_name} has one of shape {_shown(expected[key])}."
                )
            flat[key] = jnp.asarray(array, jnp.float32)
    return flax.traverse_util.unflatten_dict(flat)


def to_keras(variables: Variables, keras_model: "keras.Model") -> None:
    """Sets the weights of `keras_model`, of the same architecture, from Flax variables.

    Raises:
      UserError: a layer of the model is not that of the variables; nothing is changed then.
    """
    name = f"the Keras model {keras_model.name!r}"
    layers = {layer.name: layer for layer in _layers_with_weights(keras_model)}
    theirs = _by_kind(name, _keras_layers(keras_model))
    flat = flax.traverse_util.flatten_dict(dict(variables))
    model_name = _architecture({path[:-1] for path in flat if path[0] == "params"})
    ours, _ = _flax_layers(model_name, 1)
    changes = []
    for (path, flax_names), (layer, arrays) in _pairs(name, theirs, model_name, ours):
        new = [np.asarray(flat[collection, *path, weight]) for collection, weight in flax_names]
        for (_, weight), array, old in zip(flax_names, new, arrays, strict=True):
            if array.shape != old.shape:
                raise UserError(
                    f"layer {'/'.join(path)} has a {weight} of shape {array.shape}, but layer "
                    f"{layer!r} of {name} has one of shape {old.shape}."
                )
        changes.append((layers[layer], new))
    for layer, new in changes:
        layer.set_weights(new)


def _layers_with_weights(model: "keras.Model") -> Iterator["keras.layers.Layer"]:
    """Also of the models inside the model."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _layers_with_weights(layer)
        elif layer.weights:
            yield layer


def _keras_layers(model: "keras.Model") -> Iterator[Weights]:
    for layer in _layers_with_weights(model):
        yield layer.name, layer.get_weights()


def _read(path: Path) -> list[Weights]:
    """The layers of a file, in the model's order."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}.") from error
    try:
        content: Path | io.BytesIO
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        else:
            content = path
        with h5py.File(content) as file:
            if "layers" in file:
                layers = list(_keras3_layers(file["layers"]))
            else:
                layers = list(_keras2_layers(file.get("model_weights", file)))
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path} is not a weights or model file of Keras; give a .keras, .h5 or .weights.h5 "
            "file."
        ) from error
    if not layers:
        raise UserError(f"{path} holds no weights.")
    return layers


def _keras2_layers(group: h5py.Group) -> Iterator[Weights]:
    """The layout of Keras 2, which Keras 3 still writes to `.h5`."""
    for layer in map(_text, group.attrs["layer_names"]):
        names = [_text(name) for name in group[layer].attrs["weight_names"]]
        if names:
            yield layer, [group[layer][name][()] for name in names]


def _keras3_layers(group: h5py.Group) -> Iterator[Weights]:
    """The layout of Keras 3: a group per layer, numbered by class in the model's order."""
    for key in sorted(group, key=_natural):
        layer = group[key]
        if "layers" in layer:  # a model inside the model
            yield from _keras3_layers(layer["layers"])
        elif len(layer.get("vars", ())):
            values = [layer["vars"][i][()] for i in sorted(layer["vars"], key=_natural)]
            yield _text(layer["vars"].attrs.get("name", key)), values


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _natural(name: str) -> list[int | str]:
    """A key for sorting that counts: conv2d, conv2d_2, conv2d_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _by_kind(source: str, layers: Iterable[Weights]) -> dict[str, list[Weights]]:
    """The layers of each kind, in the order of their creation if their names tell it."""
    kinds: dict[str, list[Weights]] = {kind: [] for kind in WEIGHTS}
    for layer, arrays in layers:
        match [array.ndim for array in arrays]:
            case [4, 1]:
                kinds["convolution"].append((layer, arrays))
            case [2, 1]:
                kinds["dense layer"].append((layer, arrays))
            case [1, 1, 1, 1]:
                kinds["batch normalisation"].append((layer, arrays))
            case _:
                shapes = ", ".join(str(array.shape) for array in arrays)
                raise UserError(
                    f"layer {layer!r} of {source} has weights of shapes {shapes}, which are not "
                    f"those of a {', a '.join(WEIGHTS)}."
                )
    automatic = re.compile(r"(conv2d|dense|batch_normalization)(_\d+)?")
    for found in kinds.values():
        if all(automatic.fullmatch(layer) for layer, _ in found):
            found.sort(key=lambda weights: _natural(weights[0]))
    return kinds


Expected = dict[TreePath, tuple[int | None, ...]]


def _flax_layers(model_name: str, num_classes: int) -> tuple[dict[str, list[TreePath]], Expected]:
    """The layers of an architecture by kind, in the order of the forward pass, and their shapes.

    In the shapes, None is what depends on the image size.
    """
    model = models.create_model(model_name, num_classes)
    paths: dict[str, list[TreePath]] = {}

    def record(call: Any, arguments: Any, options: Any, context: Any) -> Any:  # noqa: ANN401
        kind = FLAX_KINDS.get(type(context.module))
        if kind and context.method_name == "__call__":
            paths[kind].append(context.module.path)
        return call(*arguments, **options)

    def shapes(size: int) -> Expected:
        paths.update({kind: [] for kind in WEIGHTS})
        with nn.intercept_methods(record):
            image = jnp.zeros((1, size, size, 3))
            tree = jax.eval_shape(model.init, jax.random.key(0), image)
        return {k: leaf.shape for k, leaf in flax.traverse_util.flatten_dict(tree).items()}

    small, large = shapes(224), shapes(256)
    free = {
        key: tuple(a if a == b else None for a, b in zip(small[key], large[key], strict=True))
        for key in small
    }
    return paths, free


def _pairs(
    source: str, theirs: dict[str, list[Weights]], model_name: str, ours: dict[str, list[TreePath]]
) -> Iterator[tuple[tuple[TreePath, tuple], Weights]]:
    """Each layer of ours, with the Flax names of its weights, and its counterpart in Keras."""
    for kind, names in WEIGHTS.items():
        if len(theirs[kind]) != len(ours[kind]):
            raise UserError(
                f"{source} has {len(theirs[kind])} layers of the kind {kind}, but {model_name} "
                f"has {len(ours[kind])}."
            )
        for path, weights in zip(ours[kind], theirs[kind], strict=True):
            yield (path, names), weights


def _architecture(paths: set[TreePath]) -> str:
    """The name of an architecture that has these layers."""
    for name in models.MODELS:
        layers, _ = _flax_layers(name, 1)
        if paths == {("params", *path) for kind in layers.values() for path in kind}:
            return name
    raise UserError("these variables are of none of the architectures of flowers_jax.models.")


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        b in (None, a) for a, b in zip(shape, expected, strict=True)
    )


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
