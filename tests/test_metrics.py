import jax.numpy as jnp
import numpy as np
import pytest

from flowers_jax import metrics
from flowers_jax.process.errors import UserError


def loss(logits, labels):
    return logits[:, 0]


def test_auxiliary_heads_are_weighted_and_have_metrics_of_their_own():
    heads = {
        name: jnp.array([[value, 2.0]]) for name, value in (("main", 1), ("a", 10), ("b", 100))
    }
    found = metrics.per_sample(heads, jnp.array([1]), loss, 0.3)
    assert list(found) == metrics.names(tuple(heads))
    assert float(found["loss"][0]) == 34
    assert float(found["b_loss"][0]) == 100
    np.testing.assert_array_equal(found["accuracy"], [True])  # the main head's
    np.testing.assert_array_equal(found["a_accuracy"], [False])


def test_a_single_head_has_no_metrics_of_its_own():
    found = metrics.per_sample({"main": jnp.array([[1.0, 2.0]])}, jnp.array([1]), loss, 0.3)
    assert list(found) == metrics.names(("main",)) == ["loss", "accuracy"]
    assert float(found["loss"][0]) == 1
    assert metrics.columns(("main",)) == ["loss", "accuracy", "val_loss", "val_accuracy"]


@pytest.mark.parametrize(
    "wrong", [lambda logits, labels: logits, lambda logits, labels: logits.mean()]
)
def test_a_metric_that_is_not_per_sample_is_named(monkeypatch, wrong):
    monkeypatch.setitem(metrics.METRICS, "mine", wrong)
    with pytest.raises(UserError, match=r"the metric mine gives an array \[.*\] for 1 samples"):
        metrics.per_sample({"main": jnp.array([[1.0, 2.0]])}, jnp.array([1]), loss, 0.3)
