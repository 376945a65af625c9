"""Layers with Keras' initialisation and constants, and what the study's networks have in common.

Parameters are float32; `dtype` is the dtype of the computation.
"""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from flowers_jax.ops import FAST, Ops

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch features"]
Logits = Float[Array, "batch classes"]
Mask = Bool[Array, " batch"]
Layer = Callable[[jax.Array], jax.Array]

# Keras' defaults; Flax's are lecun_normal, momentum 0.99 and epsilon 1e-5.
INITIALIZERS = {
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_uniform": nn.initializers.he_uniform(),
}
BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3
# Name of the layer that `feature_maps` makes.
FEATURES = "features"


class ImageTooSmall(ValueError):
    """Nothing is left of an image before it reaches the classifier."""


class Classifier(nn.Module):
    """A network with one classifier; one with several overrides `HEADS` and `heads`.

    Attributes:
      num_classes: size of the logits.
      dtype: of the computation.
      ops: convolution and pooling kernels.
    """

    HEADS: ClassVar[tuple[str, ...]] = ("main",)

    num_classes: int
    dtype: DTypeLike = jnp.float32
    ops: Ops = FAST

    def heads(
        self, images: Images, train: bool = False, mask: Mask | None = None
    ) -> dict[str, Logits]:
        """The logits of each of `HEADS`."""
        return {"main": self(images, train, mask)}


class FeatureMaps(nn.Module):
    """The identity: gives what flows through it a name, for Grad-CAM."""

    @nn.compact
    def __call__(self, x: Images) -> Images:
        return x


def feature_maps(x: Images) -> Images:
    """Marks the last activations with height and width; every network has one such place."""
    return FeatureMaps(name=FEATURES)(x)


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    padding: str = "VALID",
    *,
    ops: Ops,
    dtype: DTypeLike,
    initializer: str = "glorot_uniform",
    use_bias: bool = True,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution."""
    return nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=INITIALIZERS[initializer],
        conv_general_dilated=ops.conv_general_dilated,
        name=name,
    )


def dense(
    features: int,
    *,
    dtype: DTypeLike,
    initializer: str = "glorot_uniform",
    use_bias: bool = True,
    name: str | None = None,
) -> nn.Dense:
    """Fully connected layer."""
    kernel_init = INITIALIZERS[initializer]
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=kernel_init, name=name)


def batch_norm(
    *,
    train: bool,
    mask: Mask | None,
    dtype: DTypeLike,
    momentum: float = BATCH_NORM_MOMENTUM,
    name: str | None = None,
) -> Layer:
    """Batch normalisation over the samples where `mask` is true; None means all.

    The variance is biased in the batch and in the running statistics, and computed in two passes,
    as in Keras 3.
    """
    layer = nn.BatchNorm(
        momentum=momentum,
        epsilon=BATCH_NORM_EPSILON,
        use_fast_variance=False,
        dtype=dtype,
        name=name,
    )

    image_mask = None if mask is None else mask[:, None, None, None]

    def normalise(x: jax.Array) -> jax.Array:
        own = mask[:, None] if mask is not None and x.ndim == 2 else image_mask
        return layer(x, use_running_average=not train, mask=own)

    return normalise


def max_pool(
    x: Images, window: int, stride: int = 2, padding: str = "VALID", *, ops: Ops
) -> Images:
    """Maximum over square windows; padding never wins."""
    _require(x, window if padding == "VALID" else 1)
    return ops.max_pool(x, (window, window), (stride, stride), padding)


def average_pool(x: Images, window: int, stride: int) -> Images:
    """Mean over square windows, without padding."""
    _require(x, window)
    return nn.avg_pool(x, window_shape=(window, window), strides=(stride, stride))


def global_average_pool(x: Images) -> Features:
    """Mean over height and width."""
    _require(x, 1)
    return x.mean(axis=(1, 2))


def flatten(x: Images) -> Features:
    """One row per image, in Keras' order."""
    _require(x, 1)
    return x.reshape(x.shape[0], -1)


def _require(x: Images, least: int) -> None:
    if min(x.shape[1:3]) < least:
        raise ImageTooSmall(f"{x.shape[1]} x {x.shape[2]} pixels where {least} are needed")


def at_least_float32(logits: jax.Array) -> Logits:
    """Logits for the loss, which needs more precision than a narrower `dtype` has."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
