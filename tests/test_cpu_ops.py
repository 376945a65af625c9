"""Values and gradients against XLA's own operations, which run where these do not apply."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from flowers_jax.models import cpu_ops

RNG = np.random.default_rng(0)


def assert_same_value_and_gradients(ours, theirs, *arguments):
    def value_and_gradients(function):
        value, transpose = jax.vjp(function, *arguments)
        cotangent = jnp.asarray(np.random.default_rng(1).normal(size=value.shape), value.dtype)
        return value, *transpose(cotangent)

    for a, b in zip(value_and_gradients(ours), value_and_gradients(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


# Sixteen samples go in two chunks through the filter's gradient, three at once.
@pytest.mark.parametrize("batch", [3, 16])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (15, 3, 1, "VALID"),
        (14, 5, 1, "VALID"),
        (12, 3, 1, "SAME"),
        (11, 5, 1, "SAME"),
        (9, 1, 1, "SAME"),
        (31, 11, 4, "VALID"),
        (30, 11, 4, "VALID"),
        (24, 7, 2, "VALID"),
    ],
)
def test_convolution(batch, size, kernel, stride, padding):
    x = jnp.asarray(RNG.normal(size=(batch, size, size + 1, 4)), jnp.float32)
    w = jnp.asarray(RNG.normal(size=(kernel, kernel, 4, 6)), jnp.float32)
    strides = (stride, stride)
    assert_same_value_and_gradients(
        lambda x, w: cpu_ops.conv_general_dilated(x, w, strides, padding),
        lambda x, w: lax.conv_general_dilated(
            x, w, strides, padding, dimension_numbers=cpu_ops.NHWC
        ),
        x,
        w,
    )


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
    ],
)
def test_max_pooling(size, window, stride, padding, ties):
    x = RNG.normal(size=(2, size, size + 1, 5))
    # After a ReLU most windows hold several equal zeros; the gradient must go to the same one.
    x = jnp.asarray(np.maximum(np.round(x), 0) if ties else x, jnp.float32)
    window, strides = (window, window), (stride, stride)
    assert_same_value_and_gradients(
        lambda x: cpu_ops.max_pool(x, window, strides, padding),
        lambda x: nn.max_pool(x, window, strides, padding),
        x,
    )


def test_under_vmap_as_in_a_loop():
    x = jnp.asarray(RNG.normal(size=(3, 2, 9, 9, 4)), jnp.float32)
    w = jnp.asarray(RNG.normal(size=(3, 3, 3, 4, 6)), jnp.float32)

    def loss(x, w):
        y = cpu_ops.conv_general_dilated(x, w, (1, 1), "VALID")
        return jnp.sum(jnp.sin(cpu_ops.max_pool(y, (2, 2), (2, 2))))

    gradients = jax.grad(loss, argnums=(0, 1))
    together = jax.vmap(gradients)(x, w)
    for i in range(3):
        for a, b in zip(together, gradients(x[i], w[i]), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-4)


def test_in_bfloat16():
    x = jnp.asarray(RNG.normal(size=(2, 9, 9, 4)), jnp.bfloat16)
    w = jnp.asarray(RNG.normal(size=(3, 3, 4, 6)), jnp.bfloat16)

    def loss(x, w):
        y = cpu_ops.conv_general_dilated(x, w, (1, 1), "VALID")
        return jnp.sum(cpu_ops.max_pool(y, (2, 2), (2, 2))).astype(jnp.float32)

    ours = jax.grad(loss, argnums=(0, 1))(x, w)
    exact = jax.grad(loss, argnums=(0, 1))(x.astype(jnp.float32), w.astype(jnp.float32))
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.mean(np.abs(a.astype(jnp.float32) - b) > 0.1 * np.abs(b).max()) < 0.1
