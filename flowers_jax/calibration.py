"""Confidence that can be trusted: one temperature, fitted on the validation images.

Guo et al. 2017, "On Calibration of Modern Neural Networks": logits are divided by a temperature,
which changes how sure a network is and never which class it predicts.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, special

Probabilities = Float[np.ndarray, "n classes"]
Labels = Int[np.ndarray, " n"]

NUM_BINS = 15  # of confidence, as in the paper
# The likelihood has its maximum outside where all images are right, or no better than by chance.
TEMPERATURES = (0.05, 20.0)
LEAST = np.finfo(np.float32).tiny  # what a probability that was rounded to 0 counts as


def calibrate(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The softmax of `log(probabilities) / temperature`, that is, of the logits divided by it."""
    return special.softmax(_logits(probabilities) / temperature, axis=-1)


def _logits(probabilities: Probabilities) -> Float[np.ndarray, "n classes"]:
    return np.log(np.maximum(probabilities, LEAST))


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature within `TEMPERATURES` under which the labels are most likely.

    It is 1, and the probabilities stay as they are, if all images are classified right, which any
    lower temperature would make likelier still, and if a probability is not finite.
    """
    if (probabilities.argmax(axis=1) == labels).all() or not np.isfinite(probabilities).all():
        return 1.0
    logits = _logits(probabilities.astype(np.float64))

    def loss(log_temperature: float) -> float:
        scores = special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -float(scores[np.arange(len(labels)), labels].mean())

    # The loss is convex in 1/T, so it has a single minimum.
    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x))


@dataclasses.dataclass(frozen=True)
class Bins:
    """Images by the probability of the predicted class, in bins of equal width from 0 to 1.

    Attributes:
      count: images in each bin, int.
      confidence: mean probability of the predicted class; NaN in an empty bin.
      accuracy: share of right answers; NaN in an empty bin.
    """

    count: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]
    accuracy: Float[np.ndarray, " bins"]


def reliability(probabilities: Probabilities, labels: Labels) -> Bins:
    """How often the predictions of each confidence are right."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    # Of the bins (0, 1/15], (1/15, 2/15], ...
    edges = np.arange(1, NUM_BINS) / NUM_BINS
    place = np.searchsorted(edges, confidence)
    count, sure, correct = (
        np.bincount(place, weights, NUM_BINS) for weights in (None, confidence, right)
    )
    with np.errstate(invalid="ignore"):
        return Bins(count, sure / count, correct / count)


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Mean over the images of |accuracy - confidence| of their bin."""
    bins = reliability(probabilities, labels)
    return float(np.nansum(bins.count * np.abs(bins.accuracy - bins.confidence)) / len(labels))


def accuracy_over_coverage(
    probabilities: Probabilities, labels: Labels
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Accuracy of the surest 1, 2, ... images, and the probability of the least sure of them."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    return np.cumsum(right) / np.arange(1, len(right) + 1), confidence[order]
