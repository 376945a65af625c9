"""Losses per sample."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from flowers_jax.metrics import Labels, PerSample
from flowers_jax.models.layers import Logits

Loss = Callable[[Logits, Labels], PerSample]


def cross_entropy(logits: Logits, labels: Labels) -> PerSample:
    """Minus the log of the softmax at the label."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(logits: Logits, labels: Labels) -> PerSample:
    """Mean over the classes of (softmax - one-hot)^2, Keras' `mean_squared_error`."""
    difference = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    return jnp.mean(jnp.square(difference), axis=-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}
