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
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import lax
from jaxtyping import Array, Float

from flowers_jax.ops.pooling import Images, Pads, Pair, explicit_padding

Kernel = Float[Array, "size size channels features"]
# Coefficients of all tiles, `[batch, rows, columns, channels]` each, or of the kernel, `[channels,
# features]` each.
Grid = list[list[jax.Array]]

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
    size, _, channels, features = kernel.shape
    if (
        size not in _FACTORS
        or kernel.shape[1] != size
        or tuple(strides) != (1, 1)
        or min(channels, features) < _MIN_CHANNELS
        or x.dtype != jnp.float32
    ):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    pads = explicit_padding(x, (size, size), (1, 1), padding)
    if any(x.shape[axis + 1] + sum(pads[axis]) < size for axis in (0, 1)):  # an empty result
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return _conv(x, kernel, pads)


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


def _combine(matrix: np.ndarray, terms: Sequence[jax.Array]) -> list[jax.Array]:
    """The matrix times the vector of arrays."""
    return [
        functools.reduce(
            operator.add,
            [float(factor) * term for factor, term in zip(row, terms, strict=True) if factor],
        )
        for row in matrix
    ]


def _combine_both(matrix: np.ndarray, grid: Grid) -> Grid:
    """The matrix applied to both axes of a grid."""
    rows = [_combine(matrix, row) for row in grid]
    columns = [_combine(matrix, column) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _fit(x: jax.Array, before: Sequence[int], lengths: Sequence[int]) -> jax.Array:
    """Pads with zeros, `before` of them in front, or crops, to these heights and widths."""
    sides = [
        (low, length - low - now, 0)
        for low, length, now in zip(before, lengths, x.shape[1:3], strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def _split(x: jax.Array, axis: int, tiles: int, length: int, step: int) -> list[jax.Array]:
    """Pixel i of every tile, for each i of a tile's `length`; tiles are `step` pixels apart."""
    steps = x.reshape(*x.shape[:axis], -1, step, *x.shape[axis + 1 :])
    return [
        lax.index_in_dim(
            lax.slice_in_dim(steps, i // step, i // step + tiles, axis=axis),
            i % step,
            axis + 1,
            keepdims=False,
        )
        for i in range(length)
    ]


def _join(pixels: Sequence[jax.Array], axis: int, step: int) -> jax.Array:
    """The transpose of `_split`: overlapping tiles add up."""
    last = (len(pixels) - 1) // step

    def shifted(pixel: jax.Array, by: int) -> jax.Array:
        sides = [(0, 0)] * pixel.ndim
        sides[axis] = (by, last - by)
        return jnp.pad(pixel, sides)

    steps = [
        functools.reduce(operator.add, [shifted(x, i) for i, x in enumerate(pixels[offset::step])])
        for offset in range(step)
    ]
    shape = steps[0].shape
    return jnp.stack(steps, axis + 1).reshape(*shape[:axis], -1, *shape[axis + 1 :])


def _tiles(x: jax.Array, matrix: np.ndarray, tiles: Pair, step: int) -> Grid:
    """Coefficients of the tiles, `tiles` of them along height and width, `step` pixels apart."""
    length = matrix.shape[1]
    rows = _combine(matrix, _split(x, 1, tiles[0], length, step))
    return [_combine(matrix, _split(row, 2, tiles[1], length, step)) for row in rows]


def _image(grid: Grid, matrix: np.ndarray, step: int) -> jax.Array:
    """The transpose of `_tiles` with the matrix' transpose."""
    columns = [_join(_combine(matrix, row), 2, step) for row in grid]
    return _join(_combine(matrix, columns), 1, step)


def _flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _outputs(tiles: Grid, kernels: Grid) -> Grid:
    """Products over the channels."""
    return [
        [(_flat(x) @ y).reshape(*x.shape[:3], -1) for x, y in zip(*row, strict=True)]
        for row in zip(tiles, kernels, strict=True)
    ]


def _transformed(x: jax.Array, kernel: jax.Array, pads: Pads) -> tuple[Grid, Grid, Pair]:
    """Coefficients of image and kernel; height and width of the outputs."""
    size = len(kernel)
    of_outputs, of_kernel, of_tile = _matrices(size)
    step, length = len(of_outputs), of_tile.shape[1]
    height, width = (x.shape[axis + 1] + sum(pads[axis]) - size + 1 for axis in (0, 1))
    tiles = -(-height // step), -(-width // step)
    lengths = [(n + (length - 1) // step) * step for n in tiles]
    padded = _fit(x, [low for low, _ in pads], lengths)
    kernels = _combine_both(of_kernel, [list(row) for row in kernel])
    return _tiles(padded, of_tile, tiles, step), kernels, (height, width)


def _winograd(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    x = lax.optimization_barrier(x)
    tiles, kernels, lengths = _transformed(x, kernel, pads)
    of_outputs, _, _ = _matrices(len(kernel))
    return _fit(_image(_outputs(tiles, kernels), of_outputs, len(of_outputs)), (0, 0), lengths)


def _winograd_gradient(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    of_outputs, of_kernel, of_tile = _matrices(len(kernel))
    step = len(of_outputs)
    # Otherwise XLA computes dy anew for every coefficient.
    x, dy = lax.optimization_barrier((x, dy))
    # Keeping the coefficients of the forward pass would take several times the image's memory.
    tiles, kernels, _ = _transformed(x, kernel, pads)
    rows, columns = tiles[0][0].shape[1:3]
    padded = _fit(dy, (0, 0), (step * rows, step * columns))
    doutputs = _tiles(padded, of_outputs.T, (rows, columns), step)
    kernels_t = [[y.T for y in row] for row in kernels]
    dx = _image(_outputs(doutputs, kernels_t), of_tile.T, step)
    dkernels = [
        [_flat(x).T @ _flat(dy) for x, dy in zip(*row, strict=True)]
        for row in zip(tiles, doutputs, strict=True)
    ]
    dkernel = jnp.stack([jnp.stack(row) for row in _combine_both(of_kernel.T, dkernels)])
    return _fit(dx, [-low for low, _ in pads], x.shape[1:3]), dkernel


def _lax(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _lax_gradient(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(functools.partial(_lax, pads=pads), x, kernel)[1](dy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_winograd, pads=pads),
        default=functools.partial(_lax, pads=pads),
    )


def _conv_forward(
    x: jax.Array, kernel: jax.Array, pads: Pads
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, pads), (x, kernel)


def _conv_backward(
    pads: Pads, inputs: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return lax.platform_dependent(
        *inputs,
        dy,
        cpu=functools.partial(_winograd_gradient, pads=pads),
        default=functools.partial(_lax_gradient, pads=pads),
    )


_conv.defvjp(_conv_forward, _conv_backward)
