"""AlexNet (Krizhevsky et al. 2012) with batch normalisation for local response normalisation."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import dropout, flatten, max_pool


class AlexNet(nn.Module):
    """Five convolutions and three dense layers, in one column."""

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, dtype=self.dtype)
        norm = partial(layers.batch_norm, train, mask, dtype=self.dtype)
        dense = partial(layers.dense, dtype=self.dtype)
        x = conv(96, 11, stride=4)(images)
        x = norm()(x)
        x = max_pool(x, 3)
        x = conv(256, 5, padding="SAME")(x)
        x = norm()(x)
        x = max_pool(x, 3)
        x = conv(384, 3, padding="SAME")(x)
        x = norm()(x)
        x = conv(384, 3, padding="SAME")(x)
        x = norm()(x)
        x = conv(256, 3, padding="SAME")(x)
        x = norm()(x)
        x = max_pool(x, 3)
        x = flatten(x)
        x = dense(4096)(x)
        x = dropout(0.5, train)(x)
        x = dense(4096)(x)
        x = dropout(0.5, train)(x)
        return layers.logits(self.num_classes, dtype=self.dtype)(x)
