"""Values and gradients against XLA's own pooling, which runs on GPU and TPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flowers_jax.ops import pooling

RNG = np.random.default_rng(0)


def assert_same_value_and_gradients(ours, theirs, *arguments):
    def value_and_gradients(function):
        value, transpose = jax.vjp(function, *arguments)
        cotangent = jnp.asarray(np.random.default_rng(1).normal(size=value.shape), value.dtype)
        return value, *transpose(cotangent)

    for a, b in zip(value_and_gradients(ours), value_and_gradients(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.versions
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [
        (12, 2, 2, "VALID"),
        (13, 2, 2, "VALID"),
        (13, 3, 2, "VALID"),
        (12, 3, 2, "VALID"),
        (12, 3, 2, "SAME"),
        (7, 3, 1, "SAME"),
        (13, 2, 3, "VALID"),  # pixels between the windows
        (12, (3, 2), (1, 2), "VALID"),
        (12, (2, 5), (3, 2), "SAME"),
    ],
)
def test_max_pooling(size, window, stride, padding, ties):
    x = RNG.normal(size=(2, size, size + 1, 5))
    # After a ReLU most windows hold several equal zeros; the gradient must go to the same one.
    x = jnp.asarray(np.maximum(np.round(x), 0) if ties else x, jnp.float32)
    window, strides = (v if isinstance(v, tuple) else (v, v) for v in (window, stride))
    assert_same_value_and_gradients(
        lambda x: pooling.max_pool(x, window, strides, padding),
        lambda x: nn.max_pool(x, window, strides, padding),
        x,
    )


def test_under_vmap_as_in_a_loop():
    x = jnp.asarray(RNG.normal(size=(3, 2, 9, 9, 4)), jnp.float32)

    def loss(x):
        return jnp.sum(jnp.sin(pooling.max_pool(x, (2, 2), (2, 2))))

    together = jax.vmap(jax.grad(loss))(x)
    for i in range(3):
        np.testing.assert_allclose(together[i], jax.grad(loss)(x[i]), atol=1e-6)


def test_in_bfloat16():
    x = jnp.asarray(RNG.normal(size=(2, 9, 9, 4)), jnp.bfloat16)
    assert_same_value_and_gradients(
        lambda x: pooling.max_pool(x, (2, 2), (2, 2)),
        lambda x: nn.max_pool(x, (2, 2), (2, 2)),
        x,
    )
