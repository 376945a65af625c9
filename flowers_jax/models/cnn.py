"""The study's own networks: the pilot, the base CNN and its improvements.

Convolutions are unpadded; batch normalisation follows the ReLU, which is the study's peculiarity.
Where neither it nor `feature_maps` needs the ReLU's image, the ReLU follows the pool: the numbers
and gradients are the same, in less memory.
"""

from functools import partial

from flax import linen as nn

from flowers_jax.models import layers
from flowers_jax.models.layers import (
    Classifier,
    Images,
    Logits,
    Mask,
    at_least_float32,
    feature_maps,
    flatten,
    global_average_pool,
)


class PilotCNN(Classifier):
    """The study's version 1: two convolutions."""

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        dense = partial(layers.dense, dtype=self.dtype)
        dropout = partial(nn.Dropout, deterministic=not train)

        x = nn.relu(max_pool(conv(32, 3)(images), 2))
        x = feature_maps(nn.relu(conv(64, 3)(x)))
        x = max_pool(x, 2)
        x = dropout(0.25)(x)
        x = flatten(x)
        x = nn.relu(dense(128)(x))
        x = dropout(0.5)(x)
        return at_least_float32(dense(self.num_classes)(x))


class BaseCNN(Classifier):
    """Three convolutions and a dense layer.

    Attributes:
      conv_dropout: after the second and third convolution; version 2 has 0.25.
      last_kernel: size of the third convolution; improvement 1 begins with 5.
      batch_norm: after every ReLU of a convolution, with a first pool of 3x3, as in improvement 4.
      global_pool: average over the image instead of flattening it, as in improvement 2.
    """

    conv_dropout: float = 0.0
    last_kernel: int = 3
    batch_norm: bool = False
    global_pool: bool = False

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        dense = partial(layers.dense, dtype=self.dtype)
        dropout = partial(nn.Dropout, deterministic=not train)

        def norm() -> layers.Layer:
            if not self.batch_norm:
                return lambda x: x
            return layers.batch_norm(train=train, mask=mask, dtype=self.dtype)

        def pooled(x: Images, window: int) -> Images:
            if self.batch_norm:
                return max_pool(norm()(nn.relu(x)), window)
            return nn.relu(max_pool(x, window))

        x = pooled(conv(32, 3)(images), 3 if self.batch_norm else 2)
        x = pooled(conv(64, 3)(x), 2)
        if self.conv_dropout:
            x = dropout(self.conv_dropout)(x)
        x = feature_maps(norm()(nn.relu(conv(128, self.last_kernel)(x))))
        x = max_pool(x, 2)
        if self.conv_dropout:
            x = dropout(self.conv_dropout)(x)
        x = global_average_pool(x) if self.global_pool else flatten(x)
        x = nn.relu(dense(128)(x))
        x = dropout(0.5)(x)
        return at_least_float32(dense(self.num_classes)(x))


class Improvement1(Classifier):
    """The base CNN with a 5x5 convolution and a fourth one."""

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        dense = partial(layers.dense, dtype=self.dtype)
        dropout = partial(nn.Dropout, deterministic=not train)

        x = nn.relu(max_pool(conv(32, 3)(images), 2))
        x = nn.relu(max_pool(conv(64, 3)(x), 2))
        x = nn.relu(max_pool(conv(128, 5)(x), 2))
        x = feature_maps(nn.relu(conv(128, 3)(x)))
        x = max_pool(x, 2)
        x = flatten(x)
        x = nn.relu(dense(128)(x))
        x = dropout(0.5)(x)
        return at_least_float32(dense(self.num_classes)(x))


class GlobalPoolCNN(Classifier):
    """Improvements 2 and 3: dropout after every pool and global average pooling at the end.

    Attributes:
      last_features: output channels of the last convolution.
      last_kernel: its kernel size.
    """

    last_features: int = 96
    last_kernel: int = 3

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        dense = partial(layers.dense, dtype=self.dtype)
        dropout = partial(nn.Dropout, deterministic=not train)

        x = nn.relu(max_pool(conv(32, 3)(images), 2))
        x = dropout(0.5)(x)
        x = nn.relu(max_pool(conv(64, 3)(x), 2))
        x = dropout(0.5)(x)
        x = nn.relu(max_pool(conv(96, 3)(x), 2))
        x = dropout(0.5)(x)
        x = feature_maps(nn.relu(conv(self.last_features, self.last_kernel)(x)))
        x = max_pool(x, 2)
        x = dropout(0.2)(x)
        x = global_average_pool(x)
        return at_least_float32(dense(self.num_classes)(x))


class Improvement4(Classifier):
    """Batch normalisation after every convolution, no dropout (improvements 4 and 5)."""

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        norm = partial(layers.batch_norm, train=train, mask=mask, dtype=self.dtype)
        dense = partial(layers.dense, dtype=self.dtype)

        x = norm()(nn.relu(conv(32, 3)(images)))
        x = max_pool(x, 3)
        x = norm()(nn.relu(conv(64, 3)(x)))
        x = max_pool(x, 2)
        x = norm()(nn.relu(conv(128, 5)(x)))
        x = max_pool(x, 2)
        x = feature_maps(norm()(nn.relu(conv(128, 3)(x))))
        x = max_pool(x, 2)
        x = global_average_pool(x)
        return at_least_float32(dense(self.num_classes)(x))


BaseCNNv2 = partial(BaseCNN, conv_dropout=0.25)
Improvement2 = partial(GlobalPoolCNN, last_features=96, last_kernel=3)
Improvement3 = partial(GlobalPoolCNN, last_features=128, last_kernel=5)
