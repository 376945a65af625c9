import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from flowers_jax import losses
from flowers_jax.process.errors import UserError

LOGITS = jnp.asarray(np.random.default_rng(0).normal(0, 3, (20, 5)), jnp.float32)
LABELS = jnp.arange(20) % 5


def test_both_losses_are_those_of_keras():
    import keras

    probabilities = np.asarray(jax.nn.softmax(LOGITS))
    one_hot = np.eye(5)[LABELS]
    np.testing.assert_allclose(
        losses.cross_entropy(LOGITS, LABELS),
        keras.losses.categorical_crossentropy(one_hot, probabilities),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        losses.squared_error(LOGITS, LABELS),
        keras.losses.mean_squared_error(one_hot, probabilities),
        rtol=1e-4,
    )


def test_cross_entropy_is_finite_for_logits_of_any_size():
    huge = jnp.array([[1e4, -1e4]])
    assert float(losses.cross_entropy(huge, jnp.array([1]))[0]) == 2e4


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [10, 3, 7])
    ours = losses.class_weights("balanced", np.bincount(labels))
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(ours, expected)
    with pytest.raises(UserError, match="has 2 weights, but the data has 3 classes"):
        losses.class_weights((1.0, 2.0), np.bincount(labels))
    assert losses.class_weights([1.0, 2.0, 0.5], np.bincount(labels)) == (1.0, 2.0, 0.5)
