"""Losses per sample, and their sum over the heads of GoogLeNet."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Minus the log of the softmax at the label: `[batch, classes]`, int `[batch]` to `[batch]`."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the classes of (softmax - one-hot)^2, Keras' `mean_squared_error`: `[batch]`."""
    difference = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    return jnp.mean(jnp.square(difference), axis=-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def sum_over_heads(losses: list[jax.Array], aux_weight: float) -> jax.Array:
    """The first (main) head's loss plus `aux_weight` times each other's.

    The study added them with weight 1; the GoogLeNet paper (section 5) with 0.3.
    """
    return losses[0] + aux_weight * sum(losses[1:])
