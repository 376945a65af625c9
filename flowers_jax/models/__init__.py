"""The architectures by name, and what each must fulfil.

A model is a `layers.Classifier` and has one line in `MODELS`; `defects` and the tests of the table
hold it to this contract:

- Calling it with scaled float images `[batch, height, width, 3]` gives float32 logits
  `[batch, num_classes]`, also where `dtype`, that of the computation, is narrower; parameters are
  float32. `heads` gives the logits by head; their names are `HEADS`, the main one first.
- `train` is false by default, which switches dropout off and makes batch normalisation use its
  running statistics. With `train=True` the collection `batch_stats` is mutable, and dropout draws
  from the key `dropout`.
- `mask` tells which samples are real. Batch normalisation must leave the others out
  (`layers.batch_norm` does), so padding changes neither logits nor statistics of real samples.
- Convolutions and pools take their kernels from `ops` (`layers.conv`, `layers.max_pool`), and an
  image of which nothing is left raises `layers.ImageTooSmall`, as these do.
- `layers.feature_maps` gives the last feature maps a name, where Grad-CAM is wanted.

Further attributes of the module are arguments, given as `config.model_args`.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from flowers_jax import ops
from flowers_jax.models import cnn
from flowers_jax.models.alexnet import AlexNet
from flowers_jax.models.googlenet import GoogLeNet
from flowers_jax.models.layers import Classifier
from flowers_jax.models.vgg16 import VGG16
from flowers_jax.process.errors import UserError

Variables = dict[str, Any]
# Names from the collection down to an array or a layer, such as ("inception_3a", "conv_1x1").
TreePath = tuple[str, ...]

MODELS: dict[str, Callable[..., Classifier]] = {
    "pilot_cnn": cnn.PilotCNN,
    "base_cnn": cnn.BaseCNN,
    "base_cnn_v2": cnn.BaseCNNv2,
    "improvement_1": cnn.Improvement1,
    "improvement_2": cnn.Improvement2,
    "improvement_3": cnn.Improvement3,
    "improvement_4": cnn.Improvement4,
    "alexnet": AlexNet,
    "vgg16": VGG16,
    "googlenet": GoogLeNet,
}


def create_model(
    name: str,
    num_classes: int = 5,
    dtype: DTypeLike = jnp.float32,
    **model_args: Any,  # noqa: ANN401
) -> Classifier:
    """The architecture `name`, computing in `dtype`; parameters are float32.

    Args:
      name: one of `MODELS`.
      num_classes: size of the logits.
      dtype: of the computation.
      **model_args: further attributes of the module, such as `last_kernel=5`.

    Raises:
      UserError: there is no such model, or it takes no such argument.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}.")
    try:
        return MODELS[name](num_classes=num_classes, dtype=dtype, **model_args)
    except TypeError as error:
        known = ", ".join(arguments(name)) or "none"
        raise UserError(f"model_args={model_args}: {name} takes the arguments {known}.") from error


def of_config(config: ConfigDict, num_classes: int) -> Classifier:
    """The architecture that `config` describes; raises as `create_model`."""
    model = create_model(config.model, num_classes, jnp.dtype(config.dtype), **config.model_args)
    return model.clone(ops=ops.DETERMINISTIC) if config.deterministic else model


def arguments(name: str) -> list[str]:
    """What `create_model` takes as `model_args` for this architecture."""
    shared = {field.name for field in dataclasses.fields(Classifier)}
    own = dataclasses.fields(MODELS[name](num_classes=1))
    return [field.name for field in own if field.name not in shared]


def defects(name: str) -> list[str]:
    """What the architecture lacks to be trained, as far as its signature tells."""
    try:
        model = MODELS[name](num_classes=2, dtype=jnp.float32, ops=ops.PLAIN)
    except TypeError as error:
        return [f"takes no num_classes, dtype and ops ({error})"]
    if not isinstance(model, Classifier):
        return ["is not a layers.Classifier"]
    found = []
    method = (
        type(model).heads if type(model).heads is not Classifier.heads else type(model).__call__
    )
    for argument, default in (("train", False), ("mask", None)):
        parameter = inspect.signature(method).parameters.get(argument)
        if parameter is None or parameter.default is not default:
            found.append(f"{method.__name__} takes no {argument}={default}")
    return found


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The arrays of a model at one image size.

    Attributes:
      variables: tree of `jax.ShapeDtypeStruct`.
      layers: path of every layer that has parameters.
      classifier: paths of the variables whose shape depends on the number of classes.
    """

    variables: Variables
    layers: tuple[TreePath, ...]
    classifier: frozenset[TreePath]


def shapes(model: Classifier, image_size: int) -> Shapes:
    """The shapes of a model, computed without running it.

    Raises:
      layers.ImageTooSmall: nothing is left of the image before it reaches the classifier.
      UserError: its heads or logits are not those of the contract.
    """

    def trace(model: Classifier) -> Variables:
        images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
        key = jax.eval_shape(jax.random.key, 0)
        init = partial(model.clone(ops=ops.PLAIN).init_with_output, method="heads")
        logits, variables = jax.eval_shape(init, key, images)
        found = {head: (leaf.shape, leaf.dtype.name) for head, leaf in logits.items()}
        expected = dict.fromkeys(model.HEADS, ((1, model.num_classes), "float32"))
        if found != expected:
            raise UserError(
                f"{type(model).__name__} gives the logits {found}, but must give {expected}."
            )
        return variables

    variables = trace(model)
    flat = flax.traverse_util.flatten_dict(variables)
    other = flax.traverse_util.flatten_dict(trace(model.clone(num_classes=model.num_classes + 1)))
    return Shapes(
        variables,
        tuple(dict.fromkeys(path[1:-1] for path in flat if path[0] == "params")),
        frozenset(path for path, leaf in flat.items() if leaf.shape != other[path].shape),
    )


def table(model: Classifier, image_size: int) -> str:
    """Layers with shapes, parameters and FLOPs of a forward pass, for one image."""
    image = jnp.zeros((1, image_size, image_size, 3))
    tabulate = nn.tabulate(
        model.clone(ops=ops.PLAIN),  # the operations of direct convolutions
        jax.random.key(0),
        compute_flops=True,
        console_kwargs={"width": 160, "force_terminal": False},
    )
    return tabulate(image)
