import jax.numpy as jnp
import numpy as np

from flowers_jax.data import scaling


def test_scalings():
    pixels = jnp.array([0, 51, 255], jnp.uint8)
    for name, expected in (
        ("none", [0, 51, 255]),
        ("0_1", [0, 0.2, 1]),
        ("-1_1", [-1, -0.6, 1]),
        ("0_1_twice", [0, 0.2 / 255, 1 / 255]),
    ):
        np.testing.assert_allclose(scaling.scale(pixels, name), expected, rtol=1e-6, atol=1e-7)
