"""GoogLeNet (Szegedy et al. 2015, table 1) with its two auxiliary classifiers.

The study's version leaves out the local response normalisation.
"""

from functools import partial
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import (
    Classifier,
    Images,
    Logits,
    Mask,
    at_least_float32,
    average_pool,
    feature_maps,
    flatten,
    global_average_pool,
)
from flowers_jax.ops import Ops

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
    ops: Ops

    @nn.compact
    def __call__(self, x: Images) -> Images:
        conv = partial(layers.conv, padding="SAME", ops=self.ops, dtype=self.dtype)
        conv1, reduce3, conv3, reduce5, conv5, projection = self.channels

        one = nn.relu(conv(conv1, 1, name="conv_1x1")(x))
        three = nn.relu(conv(reduce3, 1, name="reduce_3x3")(x))
        three = nn.relu(conv(conv3, 3, name="conv_3x3")(three))
        five = nn.relu(conv(reduce5, 1, name="reduce_5x5")(x))
        five = nn.relu(conv(conv5, 5, name="conv_5x5")(five))
        pool = layers.max_pool(x, 3, stride=1, padding="SAME", ops=self.ops)
        pool = nn.relu(conv(projection, 1, name="pool_proj")(pool))
        return jnp.concatenate([one, three, five, pool], axis=-1)


class AuxiliaryHead(nn.Module):
    """Classifier on an intermediate feature map, for training (section 5 of the paper)."""

    num_classes: int
    dtype: DTypeLike
    ops: Ops

    @nn.compact
    def __call__(self, x: Images, train: bool) -> Logits:
        dense = partial(layers.dense, dtype=self.dtype)

        x = average_pool(x, 5, stride=3)
        x = nn.relu(layers.conv(128, 1, ops=self.ops, dtype=self.dtype)(x))
        x = flatten(x)
        x = nn.relu(dense(1024)(x))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return at_least_float32(dense(self.num_classes)(x))


class GoogLeNet(Classifier):
    """Nine inception modules; a main and two auxiliary classifiers."""

    HEADS: ClassVar[tuple[str, ...]] = ("main", "aux1", "aux2")

    def __call__(
        self, images: Images, train: bool = False, mask: Mask | None = None
    ) -> Logits | tuple[Logits, Logits, Logits]:
        """Logits of the main head; in training those of all three."""
        heads = self.heads(images, train, mask)
        return (heads["main"], heads["aux1"], heads["aux2"]) if train else heads["main"]

    @nn.compact
    def heads(
        self, images: Images, train: bool = False, mask: Mask | None = None
    ) -> dict[str, Logits]:
        """The logits of all heads."""
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)

        def inception(block: str) -> Inception:
            return Inception(INCEPTION[block], self.dtype, self.ops, name=f"inception_{block}")

        def auxiliary(name: str) -> AuxiliaryHead:
            return AuxiliaryHead(self.num_classes, self.dtype, self.ops, name=name)

        x = nn.relu(conv(64, 7, stride=2, name="conv1")(images))
        x = max_pool(x, 3)
        x = nn.relu(conv(64, 1, name="conv2_reduce")(x))
        x = nn.relu(conv(192, 3, padding="SAME", name="conv2")(x))
        x = max_pool(x, 3)
        x = inception("3a")(x)
        x = inception("3b")(x)
        x = max_pool(x, 3)
        x = inception("4a")(x)
        aux1 = auxiliary("aux1")(x, train)
        x = inception("4b")(x)
        x = inception("4c")(x)
        x = inception("4d")(x)
        aux2 = auxiliary("aux2")(x, train)
        x = inception("4e")(x)
        x = max_pool(x, 3)
        x = inception("5a")(x)
        x = feature_maps(inception("5b")(x))
        x = global_average_pool(x)
        x = nn.Dropout(0.4, deterministic=not train)(x)
        main = layers.dense(self.num_classes, dtype=self.dtype, name="main")(x)
        return {"main": at_least_float32(main), "aux1": aux1, "aux2": aux2}
