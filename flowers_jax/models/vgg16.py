"""VGG16 (Simonyan and Zisserman 2014, configuration D), as in `keras.applications`: no dropout."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import flatten, max_pool

# Output channels of the 3x3 convolutions; a block ends in a 2x2 pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions and three dense layers."""

    num_classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        x = images
        for i, block in enumerate(BLOCKS, start=1):
            for j, features in enumerate(block, start=1):
                name = f"block{i}_conv{j}"
                x = layers.conv(features, 3, padding="SAME", dtype=self.dtype, name=name)(x)
            x = max_pool(x, 2)
        x = flatten(x)
        x = layers.dense(4096, dtype=self.dtype, name="fc1")(x)
        x = layers.dense(4096, dtype=self.dtype, name="fc2")(x)
        return layers.logits(self.num_classes, dtype=self.dtype, name="predictions")(x)
