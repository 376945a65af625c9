"""Convolution with fewer multiplications on XLA's CPU backend.

Winograd's minimal filtering computes 2 x 2 outputs of a 3 x 3 convolution with 16 multiplications
instead of 36, and 4 x 4 outputs of a 5 x 5 convolution with 100 instead of 400 (Lavin and Gray
2016, arXiv:1509.09308). The outputs are coefficients of a product of polynomials, which the Chinese
remainder theorem gives from its remainders modulo x, infinity and the factors of x^2 - 1 or
x^6 - 1. With roots of unity all numbers stay small, and the result rounds about as a direct
convolution does; larger tiles of linear factors multiply less and round several times worse
(Barabasz and Gregg 2019, arXiv:1905.05233). On GPU and TPU the operation lowers to XLA's own
convolution; the platform is known when a program is lowered.

An image is cut into tiles, one for each block of outputs; the convolution is one matrix product for
each coefficient of the tiles.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jaxtyping import Array, Float

from flowers_jax.ops.pooling import Images, Pads, Pair, explicit_padding, fit

Kernel = Float[Array, "size size channels features"]
# The lower coefficients of monic polynomials, constant first: the factors of x (x^2 - 1) for 3 x 3
# and of x (x^6 - 1) for 5 x 5.
_FACTORS = {
    3: ((0,), (-1,), (1,)),
    5: ((0,), (-1,), (1,), (1, 1), (1, -1)),
}
# With fewer channels and features the transforms cost more than the multiplications they save.
_MIN_CHANNELS = 64


def conv_general_dilated(
    x: Images,
    kernel: Kernel,
    strides: Sequence[int],
    padding: str | Sequence[Pair],
    **options: Any,  # noqa: ANN401
) -> Images:
    """`lax.conv_general_dilated` as `flax.linen.Conv` calls it without dilation or groups."""

    def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)

    size, _, channels, features = kernel.shape
    if (
        size not in _FACTORS
        or kernel.shape[1] != size
        or tuple(strides) != (1, 1)
        or min(channels, features) < _MIN_CHANNELS
        or x.dtype != jnp.float32
    ):
        return direct(x, kernel)
    pads = explicit_padding(x, (size, size), (1, 1), padding)
    if any(x.shape[axis + 1] + sum(pads[axis]) < size for axis in (0, 1)):  # an empty result
        return direct(x, kernel)
    winograd = functools.partial(_winograd, pads=pads)
    return lax.platform_dependent(x, kernel, cpu=winograd, default=direct)


def _remainders(factor: Sequence[int], num_powers: int) -> np.ndarray:
    """1, x, x^2, ... modulo the factor, `[degree, num_powers]`."""
    powers = [np.eye(len(factor))[0]]
    for _ in range(num_powers - 1):
        *lower, highest = powers[-1]
        powers.append(np.array([0, *lower]) - highest * np.array(factor))
    return np.array(powers).T


@functools.cache
def _matrices(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For outputs `[step, n]`, kernel `[n, size]` and tile `[n, step + size - 1]`, along one axis.

    `outputs @ ((kernel @ g) * (tile @ d))` are the outputs of the kernel g on the tile d.
    """
    factors = _FACTORS[size]
    length = sum(map(len, factors)) + 1

    def evaluate(num_powers: int) -> np.ndarray:
        rows = []
        for factor in factors:
            remainders = _remainders(factor, num_powers)
            rows += [remainders, remainders.sum(0)] if len(factor) == 2 else [remainders]
        return np.vstack([*rows, np.eye(num_powers)[-1]])

    # The product of two remainders from products of numbers; of a + b x and c + d x, modulo
    # q + p x + x^2, from a c, b d and (a + b) (c + d) as by Karatsuba.
    products = [
        [[1, -factor[0], 0], [-1, -1 - factor[1], 1]] if len(factor) == 2 else [[1]]
        for factor in factors
    ]
    remainders = [_remainders(factor, length) for factor in factors]
    inverse = np.linalg.inv(np.vstack([*remainders, np.eye(length)[-1]]))
    tile = (inverse @ scipy.linalg.block_diag(*products, 1)).T
    tile[np.abs(tile) < 1e-9] = 0
    return evaluate(length - size + 1).T, evaluate(size), tile


def _both(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    """The matrix applied to both leading axes, as one product; they become one axis."""
    of_both = jnp.asarray(np.kron(matrix, matrix), x.dtype)
    return (of_both @ x.reshape(of_both.shape[1], -1)).reshape(-1, *x.shape[2:])


def _tiles(x: jax.Array, step: int) -> jax.Array:
    """Overlapping squares of `2 step` pixels, `step` apart, their pixels on the first two axes."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // step, step, width // step, step, channels)
    x = jnp.concatenate([x[:, :-1], x[:, 1:]], axis=2)
    x = jnp.concatenate([x[:, :, :, :-1], x[:, :, :, 1:]], axis=4)
    return x.transpose(2, 4, 0, 1, 3, 5)


def _winograd(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    size, _, channels, features = kernel.shape
    of_outputs, of_kernel, of_tile = _matrices(size)
    step = len(of_outputs)
    height, width = (x.shape[axis + 1] + sum(pads[axis]) - size + 1 for axis in (0, 1))
    rows, columns = -(-height // step), -(-width // step)
    x = fit(x, [low for low, _ in pads], [(rows + 1) * step, (columns + 1) * step])
    coefficients = _both(of_tile, _tiles(x, step)).reshape(-1, len(x) * rows * columns, channels)
    # A product over the channels for each coefficient.
    products = coefficients @ _both(of_kernel, kernel)
    products = products.reshape(len(of_kernel), len(of_kernel), len(x), rows, columns, features)
    outputs = _both(of_outputs, products).reshape(step, step, *products.shape[2:])
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)  # batch, row and its pixels, column and its
    outputs = outputs.reshape(len(x), rows * step, columns * step, features)
    return fit(outputs, (0, 0), (height, width))
