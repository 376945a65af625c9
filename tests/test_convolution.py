"""Values and gradients against XLA's own convolution, and against float64 by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from flax import linen as nn

from flowers_jax import ops
from flowers_jax.models import layers
from flowers_jax.ops import convolution

RNG = np.random.default_rng(0)


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def direct(x, kernel, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def ours(x, kernel, padding):
    return convolution.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def has_direct_convolution(x, kernel, padding="SAME"):
    lowered = jax.jit(ours, static_argnums=2).lower(x, kernel, padding)
    return "stablehlo.convolution" in lowered.as_text()


# What the models have: AlexNet 5x5 and 3x3, the base CNNs VALID and 5x5, VGG16 and GoogLeNet.
@pytest.mark.parametrize(
    ("size", "padding", "height", "width", "channels", "features"),
    [
        pytest.param(3, "VALID", 17, 17, 128, 128, marks=pytest.mark.versions),
        (3, "VALID", 16, 19, 64, 96),
        (3, "SAME", 8, 8, 256, 384),
        (3, "SAME", 9, 9, 512, 512),
        (3, "SAME", 7, 7, 192, 384),
        pytest.param(3, "SAME", 1, 2, 64, 96, marks=pytest.mark.versions),
        (5, "SAME", 17, 17, 96, 256),
        (5, "VALID", 16, 15, 64, 128),
        (5, ((3, 0), (1, 2)), 6, 7, 96, 64),
    ],
)
def test_value_and_gradients(size, padding, height, width, channels, features):
    x, kernel = random(4, height, width, channels), random(size, size, channels, features)
    assert not has_direct_convolution(x, kernel, padding)

    def value_and_gradients(function):
        value, transpose = jax.vjp(lambda x, kernel: function(x, kernel, padding), x, kernel)
        cotangent = np.random.default_rng(1).normal(size=value.shape)
        return value, *jax.jit(transpose)(jnp.asarray(cotangent, value.dtype))

    found, expected = value_and_gradients(ours), value_and_gradients(direct)
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("size", [3, 5])
def test_equals_a_correlation_in_float64(size):
    x, kernel = random(1, 10, 13, 64), random(size, size, 64, 96)
    expected = sum(
        scipy.signal.correlate2d(np.float64(x[0, :, :, i]), np.float64(kernel[:, :, i, 5]), "valid")
        for i in range(64)
    )
    found = ours(x, kernel, "VALID")[0, :, :, 5]
    # About as near as XLA's own convolution comes.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_under_vmap_as_in_a_loop():
    x, kernels = random(3, 2, 9, 9, 64), random(3, 3, 3, 64, 96)

    def loss(x, kernel):
        return jnp.mean(jnp.sin(ours(x, kernel, "SAME")))

    gradients = jax.grad(loss, argnums=(0, 1))
    together, alone = jax.jit(jax.vmap(gradients))(x, kernels), jax.jit(gradients)
    for i in range(3):
        for a, b in zip(together, alone(x[i], kernels[i]), strict=True):
            np.testing.assert_allclose(a[i], b, atol=1e-5 * np.abs(b).max())


def test_few_channels_and_other_types_are_direct_whatever_the_precision():
    x, kernel = random(1, 8, 8, 64), random(3, 3, 64, 96)
    assert not has_direct_convolution(x, kernel)
    assert has_direct_convolution(x, kernel[..., :32])
    assert has_direct_convolution(x[..., :32], kernel[:, :, :32])
    assert has_direct_convolution(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    with jax.default_matmul_precision("highest"):
        assert not has_direct_convolution(x, kernel)


def test_an_image_smaller_than_the_kernel_gives_an_empty_one():
    assert ours(random(1, 2, 8, 64), random(3, 3, 64, 96), "VALID").shape == (1, 0, 6, 96)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_their_own(platform):
    x, kernel = random(1, 8, 8, 64), random(3, 3, 64, 96)

    def gradients(x, kernel):
        return jax.grad(lambda x, kernel: ours(x, kernel, "SAME").sum(), (0, 1))(x, kernel)

    lowered = jax.jit(gradients).trace(x, kernel).lower(lowering_platforms=(platform,))
    assert "stablehlo.convolution" in lowered.as_text()
    assert "dot_general" not in lowered.as_text()


@pytest.mark.versions
def test_the_layer_of_the_models_takes_it_and_gives_what_flax_gives():
    x = random(2, 9, 9, 64)
    layer = nn.Conv(96, (3, 3))
    variables = layer.init(jax.random.key(0), x)

    class Ours(nn.Module):
        @nn.compact
        def __call__(self, x):
            conv = layers.conv(96, 3, padding="SAME", ops=ops.FAST, dtype=jnp.float32, name="conv")
            return conv(x)

    ours = jax.jit(Ours().apply)
    variables_of_ours = {"params": {"conv": variables["params"]}}
    assert "stablehlo.convolution" not in ours.lower(variables_of_ours, x).as_text()
    expected = layer.apply(variables, x)
    found = ours(variables_of_ours, x)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
