"""The study's own networks: the pilot, the base CNN and its improvements.

Convolutions are unpadded, with ReLU; the improvements change the base CNN one idea at a time.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import dropout, flatten, global_average_pool, max_pool


class PilotCNN(nn.Module):
    """The study's version 1: two convolutions."""

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, dtype=self.dtype)
        x = conv(32, 3)(images)
        x = max_pool(x, 2)
        x = conv(64, 3)(x)
        x = max_pool(x, 2)
        x = dropout(0.25, train)(x)
        x = flatten(x)
        x = layers.dense(128, dtype=self.dtype)(x)
        x = dropout(0.5, train)(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


class BaseCNN(nn.Module):
    """Three convolutions and a dense layer.

    Attributes:
      conv_dropout: after the second and third convolution; 0.25 is version 2's.
      last_kernel: size of the third convolution; 5 is what improvement 1 changes first.
      batch_norm: after every convolution, with the first pool 3x3, as in improvement 4.
      global_pool: average over the image instead of flattening it, as in improvement 2.
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32
    conv_dropout: float = 0.0
    last_kernel: int = 3
    batch_norm: bool = False
    global_pool: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        def conv(features: int, kernel: int) -> layers.Layer:
            layer = layers.conv(features, kernel, dtype=self.dtype)
            if not self.batch_norm:
                return layer
            norm = layers.batch_norm(train, mask, dtype=self.dtype)
            return lambda x: norm(layer(x))

        x = conv(32, 3)(images)
        x = max_pool(x, 3 if self.batch_norm else 2)
        x = conv(64, 3)(x)
        x = max_pool(x, 2)
        if self.conv_dropout:
            x = dropout(self.conv_dropout, train)(x)
        x = conv(128, self.last_kernel)(x)
        x = max_pool(x, 2)
        if self.conv_dropout:
            x = dropout(self.conv_dropout, train)(x)
        x = global_average_pool(x) if self.global_pool else flatten(x)
        x = layers.dense(128, dtype=self.dtype)(x)
        x = dropout(0.5, train)(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


class Improvement1(nn.Module):
    """The base CNN with a 5x5 convolution and a fourth one."""

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, dtype=self.dtype)
        x = conv(32, 3)(images)
        x = max_pool(x, 2)
        x = conv(64, 3)(x)
        x = max_pool(x, 2)
        x = conv(128, 5)(x)
        x = max_pool(x, 2)
        x = conv(128, 3)(x)
        x = max_pool(x, 2)
        x = flatten(x)
        x = layers.dense(128, dtype=self.dtype)(x)
        x = dropout(0.5, train)(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


class GlobalPoolCNN(nn.Module):
    """Improvements 2 and 3: dropout after every pool and global average pooling at the end.

    Attributes:
      last_features: output channels of the last convolution.
      last_kernel: its kernel size.
    """

    num_classes: int
    last_features: int
    last_kernel: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, dtype=self.dtype)
        x = conv(32, 3)(images)
        x = max_pool(x, 2)
        x = dropout(0.5, train)(x)
        x = conv(64, 3)(x)
        x = max_pool(x, 2)
        x = dropout(0.5, train)(x)
        x = conv(96, 3)(x)
        x = max_pool(x, 2)
        x = dropout(0.5, train)(x)
        x = conv(self.last_features, self.last_kernel)(x)
        x = max_pool(x, 2)
        x = dropout(0.2, train)(x)
        x = global_average_pool(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


class Improvement4(nn.Module):
    """Batch normalisation after every convolution, no dropout (improvements 4 and 5)."""

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, dtype=self.dtype)
        norm = partial(layers.batch_norm, train, mask, dtype=self.dtype)
        x = conv(32, 3)(images)
        x = norm()(x)
        x = max_pool(x, 3)
        x = conv(64, 3)(x)
        x = norm()(x)
        x = max_pool(x, 2)
        x = conv(128, 5)(x)
        x = norm()(x)
        x = max_pool(x, 2)
        x = conv(128, 3)(x)
        x = norm()(x)
        x = max_pool(x, 2)
        x = global_average_pool(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


BaseCNNv2 = partial(BaseCNN, conv_dropout=0.25)
# One change of the improvements at a time, alone and one after the other, for the ablation.
BaseConv5x5 = partial(BaseCNN, last_kernel=5)
BaseBatchNorm = partial(BaseCNN, batch_norm=True)
BaseGlobalPool = partial(BaseCNN, global_pool=True)
BaseConv5x5GlobalPool = partial(BaseConv5x5, global_pool=True)
BaseConv5x5GlobalPoolBatchNorm = partial(BaseConv5x5GlobalPool, batch_norm=True)
Improvement2 = partial(GlobalPoolCNN, last_features=96, last_kernel=3)
Improvement3 = partial(GlobalPoolCNN, last_features=128, last_kernel=5)
