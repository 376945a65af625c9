"""Losses per sample, and weights of the classes in them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from flowers_jax.metrics import Labels, PerSample
from flowers_jax.models.layers import Logits
from flowers_jax.process.errors import UserError

Loss = Callable[[Logits, Labels], PerSample]


def cross_entropy(logits: Logits, labels: Labels) -> PerSample:
    """Minus the log of the softmax at the label."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(logits: Logits, labels: Labels) -> PerSample:
    """Mean over the classes of (softmax - one-hot)^2, Keras' `mean_squared_error`."""
    difference = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
    return jnp.mean(jnp.square(difference), axis=-1)


def weighted(loss: Loss, weights: Sequence[float] | None) -> Loss:
    """The loss times the weight of the label, as Keras' `class_weight`: weights change its mean."""
    if weights is None:
        return loss

    def weighted_loss(logits: Logits, labels: Labels) -> PerSample:
        values = loss(logits, labels)
        return values * jnp.array(weights, values.dtype)[labels]

    return weighted_loss


def class_weights(
    setting: str | Sequence[float] | None, counts: Int[np.ndarray, " classes"] | None
) -> tuple[float, ...] | None:
    """The weights that `config.class_weights` asks for.

    Args:
      setting: a weight per class; 'balanced' for scikit-learn's n / (classes * n of the class).
      counts: training images of each class; None where no step of training is taken.

    Raises:
      UserError: there are more classes, or fewer, than weights.
    """
    if setting is None or counts is None:
        return None
    if isinstance(setting, str):
        return tuple((counts.sum() / (len(counts) * np.maximum(counts, 1))).tolist())
    if len(setting) != len(counts):
        raise UserError(
            f"config.class_weights has {len(setting)} weights, but the data has {len(counts)} "
            "classes; give one per class, in the order of their names."
        )
    return tuple(setting)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}
