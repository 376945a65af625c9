"""Grad-CAM (Selvaraju et al. 2017, section 3): where in an image a network sees a class."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float
from PIL import Image

from flowers_jax import ops
from flowers_jax.data import scaling
from flowers_jax.data.batches import Batch
from flowers_jax.models import Variables
from flowers_jax.models.layers import FEATURES, Classifier, Images
from flowers_jax.process.errors import UserError
from flowers_jax.step import Task, apply_heads


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where in an image file the network sees a class.

    Attributes:
      path: the file.
      class_name: the class.
      heat: 0 where nothing speaks for the class, 1 where most does; as fine as the layer.
      image: the pixels of the file, RGB.
    """

    path: str
    class_name: str
    heat: Float[np.ndarray, "rows columns"]
    image: Image.Image

    def overlay(self) -> Image.Image:
        """The image, at most 1024 pixels wide and high, with the heat over it."""
        import matplotlib

        picture = self.image.copy()
        picture.thumbnail((1024, 1024))
        heat = np.asarray(Image.fromarray(self.heat.astype(np.float32)).resize(picture.size, 2))
        colours = 255 * matplotlib.colormaps["turbo"](heat)[..., :3]
        return Image.fromarray((0.5 * np.asarray(picture) + 0.5 * colours).astype(np.uint8))


def layers(model: Classifier, image_size: int) -> dict[str, tuple[int, ...]]:
    """Rows, columns and channels of every layer that has them and leads to the main classifier."""
    found: dict[str, tuple[int, ...]] = {}

    def record(call: Any, arguments: Any, options: Any, context: Any) -> Any:  # noqa: ANN401
        output = call(*arguments, **options)
        path = context.module.path if context.method_name == "__call__" else ()
        if path and path[0] not in model.HEADS and getattr(output, "ndim", 0) == 4:
            found["/".join(path)] = output.shape[1:]
        return output

    with nn.intercept_methods(record):
        images = jnp.zeros((1, image_size, image_size, 3))
        jax.eval_shape(model.clone(ops=ops.PLAIN).init, jax.random.key(0), images)
    return found


def require_layer(model: Classifier, image_size: int, layer: str) -> None:
    """Raises UserError unless the layer is one of `layers`."""
    known = layers(model, image_size)
    if layer not in known:
        raise UserError(
            f"the network has no layer {layer!r} with height and width that leads to its "
            f"classifier; choose one of {', '.join(known)}."
        )


def grad_cam(
    task: Task, layer: str, variables: Variables, batch: Batch
) -> Float[Array, "batch rows columns"]:
    """The heat of the class `batch["label"]` in each image; the largest value is 1, or all are 0.

    The mean gradient of the class's logit weighs the channels of the layer's output, and what
    speaks against the class counts as nothing (equations 1 and 2).
    """
    images = scaling.scale(batch["image"], task.input_scaling)

    def logit(shift: Images | float) -> tuple[Array, Images]:
        output, maps = _with_layer(task, layer, variables, images, lambda x: x + shift)
        # Every image has only its own maps.
        return jnp.take_along_axis(output, batch["label"][:, None], axis=1).sum(), maps

    maps = jax.eval_shape(lambda: logit(0.0)[1])
    gradient, maps = jax.grad(logit, has_aux=True)(jnp.zeros(maps.shape, maps.dtype))
    weights = gradient.mean(axis=(1, 2), keepdims=True, dtype=jnp.float32)
    heat = nn.relu((weights * maps).sum(axis=-1))
    largest = heat.max(axis=(1, 2), keepdims=True)
    return jnp.where(largest > 0, heat / jnp.where(largest > 0, largest, 1), 0)


def embed(task: Task, variables: Variables, batch: Batch) -> Float[Array, "batch channels"]:
    """What the network makes of each image: its last maps, averaged, of length 1."""
    images = scaling.scale(batch["image"], task.input_scaling)
    _, maps = _with_layer(task, FEATURES, variables, images, lambda x: x)
    means = maps.mean(axis=(1, 2), dtype=jnp.float32)
    return means / jnp.maximum(jnp.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _with_layer(
    task: Task,
    layer: str,
    variables: Variables,
    images: Images,
    change: Callable[[Images], Images],
) -> tuple[Array, Images]:
    """The logits of the main head with the output of a layer changed; and what it was."""
    outputs = []

    def intercept(call: Any, arguments: Any, options: Any, context: Any) -> Any:  # noqa: ANN401
        output = call(*arguments, **options)
        if (context.method_name, "/".join(context.module.path)) != ("__call__", layer):
            return output
        outputs.append(output)
        return change(output)

    with nn.intercept_methods(intercept):
        logits = apply_heads(task, variables, images)[task.model.HEADS[0]]
    (maps,) = outputs
    return logits, maps
