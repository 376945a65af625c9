"""AlexNet (Krizhevsky et al. 2012), with batch normalisation for local response normalisation."""

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


class AlexNet(Classifier):
    """Five convolutions and three dense layers, in one column; normalised after the ReLU."""

    @nn.compact
    def __call__(self, images: Images, train: bool = False, mask: Mask | None = None) -> Logits:
        conv = partial(layers.conv, ops=self.ops, dtype=self.dtype)
        max_pool = partial(layers.max_pool, ops=self.ops)
        norm = partial(layers.batch_norm, train=train, mask=mask, dtype=self.dtype)
        dense = partial(layers.dense, dtype=self.dtype)
        dropout = partial(nn.Dropout, deterministic=not train)

        x = norm()(nn.relu(conv(96, 11, stride=4)(images)))
        x = max_pool(x, 3)
        x = norm()(nn.relu(conv(256, 5, padding="SAME")(x)))
        x = max_pool(x, 3)
        x = norm()(nn.relu(conv(384, 3, padding="SAME")(x)))
        x = norm()(nn.relu(conv(384, 3, padding="SAME")(x)))
        x = feature_maps(norm()(nn.relu(conv(256, 3, padding="SAME")(x))))
        x = max_pool(x, 3)
        x = flatten(x)
        x = nn.relu(dense(4096)(x))
        x = dropout(0.5)(x)
        x = nn.relu(dense(4096)(x))
        x = dropout(0.5)(x)
        return at_least_float32(dense(self.num_classes)(x))
