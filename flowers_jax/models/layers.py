"""Layers with the study's (Keras') initialisation and constants, from which the models are built.

Images are `[batch, height, width, channels]`. Parameters are float32; `dtype` is the dtype of the
computation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import convolution, pooling

# Keras' defaults; Flax would take lecun_normal and epsilon 1e-5.
KERNEL_INIT = nn.initializers.glorot_uniform()
BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3

Layer = Callable[[jax.Array], jax.Array]


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    padding: str = "VALID",
    *,
    dtype: DTypeLike,
    name: str | None = None,
    kernel_init: nn.initializers.Initializer = KERNEL_INIT,
) -> Layer:
    """Square convolution, then ReLU."""
    layer = nn.Conv(
        features,
        (kernel, kernel),
        (stride, stride),
        padding,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=convolution.conv_general_dilated,
        name=name,
    )
    return lambda x: nn.relu(layer(x))


def dense(
    features: int,
    activation: Layer | None = nn.relu,
    *,
    dtype: DTypeLike,
    name: str | None = None,
    kernel_init: nn.initializers.Initializer = KERNEL_INIT,
) -> Layer:
    """Fully connected layer, then the activation."""
    layer = nn.Dense(features, dtype=dtype, kernel_init=kernel_init, name=name)
    return lambda x: activation(layer(x)) if activation else layer(x)


def logits(num_classes: int, *, dtype: DTypeLike, name: str | None = None) -> Layer:
    """The classifier: logits `[batch, num_classes]`, float32 also where `dtype` is narrower."""
    layer = dense(num_classes, None, dtype=dtype, name=name)
    return lambda x: layer(x).astype(jnp.promote_types(dtype, jnp.float32))


def batch_norm(train: bool, mask: jax.Array | None, *, dtype: DTypeLike) -> Layer:
    """Batch normalisation over the samples where `mask` (bool `[batch]`, None for all) is true.

    The variance is biased in the batch and in the running statistics, and computed in two passes,
    as in Keras 3.
    """
    layer = nn.BatchNorm(
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        use_fast_variance=False,
        dtype=dtype,
    )
    image_mask = None if mask is None else mask[:, None, None, None]
    return lambda x: layer(x, use_running_average=not train, mask=image_mask)


def dropout(rate: float, train: bool) -> Layer:
    """Zeroes each value with probability `rate` in training and scales up the rest."""
    return nn.Dropout(rate, deterministic=not train)


def max_pool(x: jax.Array, window: int, stride: int = 2, padding: str = "VALID") -> jax.Array:
    """Maximum over square windows; padding never wins."""
    return pooling.max_pool(x, (window, window), (stride, stride), padding)


def average_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Mean over square windows, without padding."""
    return nn.avg_pool(x, window_shape=(window, window), strides=(stride, stride))


def global_average_pool(x: jax.Array) -> jax.Array:
    """Mean over height and width: `[batch, channels]`."""
    return x.mean(axis=(1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """`[batch, height * width * channels]`, in Keras' order."""
    return x.reshape(x.shape[0], -1)
