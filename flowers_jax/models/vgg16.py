"""VGG16 (Simonyan and Zisserman 2014, configuration D), as in `keras.applications`: no dropout."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.models import layers
from flowers_jax.models.layers import flatten, max_pool

# Output channels of the 3x3 convolutions; a block ends in a 2x2 pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions and three dense layers.

    Attributes:
      kernel_init: of all layers but the classifier.
      batch_norm: after every convolution; the study's has none.
    """

    num_classes: int
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = layers.KERNEL_INIT
    batch_norm: bool = False

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        conv = partial(layers.conv, padding="SAME", dtype=self.dtype, kernel_init=self.kernel_init)
        dense = partial(layers.dense, dtype=self.dtype, kernel_init=self.kernel_init)
        x = images
        for i, block in enumerate(BLOCKS, start=1):
            for j, features in enumerate(block, start=1):
                x = conv(features, 3, name=f"block{i}_conv{j}")(x)
                if self.batch_norm:
                    x = layers.batch_norm(train, mask, dtype=self.dtype)(x)
            x = max_pool(x, 2)
        x = flatten(x)
        x = dense(4096, name="fc1")(x)
        x = dense(4096, name="fc2")(x)
        return layers.logits(self.num_classes, dtype=self.dtype, name="predictions")(x)
