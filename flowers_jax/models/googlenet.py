"""GoogLeNet (Szegedy et al. 2015, table 1) with its two auxiliary classifiers.

The study's version leaves out the local response normalisation.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import (
    average_pool,
    dropout,
    flatten,
    global_average_pool,
    max_pool,
)

# Output channels of each module's convolutions: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Four parallel branches, concatenated along the channels (figure 2b of the paper)."""

    channels: tuple[int, int, int, int, int, int]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(layers.conv, padding="SAME", dtype=self.dtype)
        conv1, reduce3, conv3, reduce5, conv5, projection = self.channels
        branches = [
            conv(conv1, 1, name="conv_1x1")(x),
            conv(conv3, 3, name="conv_3x3")(conv(reduce3, 1, name="reduce_3x3")(x)),
            conv(conv5, 5, name="conv_5x5")(conv(reduce5, 1, name="reduce_5x5")(x)),
            conv(projection, 1, name="pool_proj")(max_pool(x, 3, stride=1, padding="SAME")),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """Classifier on an intermediate feature map, for training (section 5 of the paper)."""

    num_classes: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = average_pool(x, 5, stride=3)
        x = layers.conv(128, 1, dtype=self.dtype)(x)
        x = flatten(x)
        x = layers.dense(1024, dtype=self.dtype)(x)
        x = dropout(0.7, train)(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)


class GoogLeNet(nn.Module):
    """Nine inception modules; a main and two auxiliary classifiers."""

    HEADS: ClassVar[tuple[str, ...]] = ("main", "aux1", "aux2")

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        train: bool = False,
        mask: jax.Array | None = None,
        all_heads: bool | None = None,
    ) -> jax.Array | tuple[jax.Array, jax.Array, jax.Array]:
        """Logits of the main head, or with `all_heads` (by default in training) of all three."""
        if all_heads is None:
            all_heads = train
        conv = partial(layers.conv, dtype=self.dtype)

        def inception(block: str) -> layers.Layer:
            return Inception(INCEPTION[block], self.dtype, name=f"inception_{block}")

        def auxiliary(name: str) -> Callable[[jax.Array], jax.Array | None]:
            if not (all_heads or self.is_initializing()):
                return lambda x: None
            head = AuxiliaryHead(self.num_classes, self.dtype, name=name)
            return lambda x: head(x, train)

        x = conv(64, 7, stride=2, name="conv1")(images)
        x = max_pool(x, 3)
        x = conv(64, 1, name="conv2_reduce")(x)
        x = conv(192, 3, padding="SAME", name="conv2")(x)
        x = max_pool(x, 3)
        x = inception("3a")(x)
        x = inception("3b")(x)
        x = max_pool(x, 3)
        x = inception("4a")(x)
        aux1 = auxiliary("aux1")(x)
        x = inception("4b")(x)
        x = inception("4c")(x)
        x = inception("4d")(x)
        aux2 = auxiliary("aux2")(x)
        x = inception("4e")(x)
        x = max_pool(x, 3)
        x = inception("5a")(x)
        x = inception("5b")(x)
        x = global_average_pool(x)
        x = dropout(0.4, train)(x)
        main = layers.logits(self.num_classes, dtype=self.dtype, name="main")(x)
        return (main, aux1, aux2) if all_heads else main
