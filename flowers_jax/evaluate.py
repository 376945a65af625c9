"""Probabilities of a split, and exact metrics from them."""

from collections.abc import Iterable
from functools import partial

import jax
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from jax.experimental import multihost_utils

from flowers_jax import cpu
from flowers_jax.data import augment


def probabilities(
    model: nn.Module,
    variables: FrozenDict | dict,
    epoch: Iterable[dict[str, jax.Array]],
    input_scaling: str,
) -> np.ndarray:
    """Class probabilities of the real samples of one epoch of batches, float32 `[n, classes]`."""

    @partial(jax.jit, compiler_options=cpu.compiler_options())
    def step(variables: FrozenDict | dict, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(model.apply(variables, augment.scale(images, input_scaling)))

    rows = [(step(variables, batch["image"]), batch["mask"]) for batch in epoch]
    if jax.process_count() > 1:
        rows = multihost_utils.process_allgather(rows, tiled=True)
    return np.concatenate([np.asarray(p)[np.asarray(mask)] for p, mask in rows])


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts `[true class, predicted class]`. The study printed the transpose."""
    from sklearn import metrics

    return metrics.confusion_matrix(labels, predicted, labels=range(num_classes))


def classification_report(
    labels: np.ndarray, predicted: np.ndarray, class_names: tuple[str, ...]
) -> str:
    """scikit-learn's table of precision, recall and F1 per class."""
    from sklearn import metrics

    return metrics.classification_report(
        labels,
        predicted,
        labels=range(len(class_names)),
        target_names=class_names,
        digits=4,
        zero_division=0,
    )
