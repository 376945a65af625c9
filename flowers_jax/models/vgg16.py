"""VGG16 (Simonyan and Zisserman 2014, configuration D), as in `keras.applications`: no dropout."""

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
)

# Output channels of the 3x3 convolutions; each block ends in a 2x2 pool.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Classifier):
    """Thirteen 3x3 convolutions and three dense layers.

    Attributes:
      initializer: a name of `layers.INITIALIZERS`, for all layers but the classifier.
      batch_norm: after every ReLU of a convolution; the study has none.
    """

    initializer: str = "glorot_uniform"
    batch_norm: bool = False

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(
            layers.conv,
            padding="SAME",
            ops=self.ops,
            dtype=self.dtype,
            initializer=self.initializer,
        )
        norm = partial(layers.batch_norm, train=train, mask=mask, dtype=self.dtype)
        dense = partial(layers.dense, dtype=self.dtype, initializer=self.initializer)

        x = images
        for i, block in enumerate(BLOCKS, start=1):
            for j, features in enumerate(block, start=1):
                x = nn.relu(conv(features, 3, name=f"block{i}_conv{j}")(x))
                if self.batch_norm:
                    x = norm()(x)
            if i == len(BLOCKS):
                x = feature_maps(x)
            x = layers.max_pool(x, 2, ops=self.ops)
        x = flatten(x)
        x = nn.relu(dense(4096, name="fc1")(x))
        x = nn.relu(dense(4096, name="fc2")(x))
        logits = layers.dense(self.num_classes, dtype=self.dtype, name="predictions")(x)
        return at_least_float32(logits)
