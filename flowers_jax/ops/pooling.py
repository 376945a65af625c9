"""Max pooling that is fast on XLA's CPU backend.

Values and gradients are those of `lax.reduce_window`. On GPU and TPU the operation lowers to it;
the platform is known when a program is lowered.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]  # height and width, or before and after
Pads = tuple[Pair, Pair]  # of height and of width
Images = Float[Array, "batch height width channels"]


def max_pool(
    x: Images,
    window: Pair,
    strides: Pair,
    padding: str | Sequence[Pair] = "VALID",
    deterministic: bool = False,
) -> Images:
    """`flax.linen.max_pool`; the gradient of a window goes to the first of its largest values.

    Args:
      x: images or features.
      window: height and width.
      strides: down and to the right.
      padding: 'SAME', 'VALID' or numbers of pixels.
      deterministic: whether a GPU, too, sums the gradient without scattering it, which XLA cannot
        do with repeatable kernels.
    """
    pads = explicit_padding(x, window, strides, padding)
    return _pool(x, window, strides, pads, deterministic)


def explicit_padding(
    x: Images, window: Sequence[int], strides: Sequence[int], padding: str | Sequence[Pair]
) -> Pads:
    """'SAME' and 'VALID' as numbers of pixels."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    height, width = ((int(low), int(high)) for low, high in padding)
    return height, width


def _pad(x: jax.Array, pads: Pads, value: float) -> jax.Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))


def fit(x: jax.Array, before: Sequence[int], lengths: Sequence[int]) -> jax.Array:
    """Pads with zeros, `before` of them in front, or crops, to these heights and widths."""
    sides = [
        (low, length - low - now, 0)
        for low, length, now in zip(before, lengths, x.shape[1:3], strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *sides, (0, 0, 0)))


def _lax_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _windows(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> Iterator[jax.Array]:
    """For each position in a window, the values of all windows there."""
    x = _pad(x, pads, -jnp.inf)
    (height, width), (sy, sx) = window, strides
    end_y, end_x = x.shape[1] - height + 1, x.shape[2] - width + 1
    for i, j in itertools.product(range(height), range(width)):
        yield x[:, i : i + end_y : sy, j : j + end_x : sx]


def _cpu_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    """Height first, then width; XLA would compute a maximum of slices anew wherever it is used."""
    (height, width), (sy, sx), (rows, columns) = window, strides, pads
    x = _lax_pool(x, (height, 1), (sy, 1), (rows, (0, 0)))
    return _lax_pool(x, (1, width), (1, sx), ((0, 0), columns))


def _pool_gradient_by_sums(
    x: jax.Array, dy: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> jax.Array:
    """Spreads `dy` to the positions of the maxima; XLA's own gradient uses one thread.

    Pixels lie in blocks of the strides' size. What windows give to them is a sum over the distance
    of window and block, so that nothing is scattered.
    """
    values = _windows(x, window, strides, pads)
    largest, where = next(values), jnp.zeros(dy.shape, jnp.int16)
    for number, value in enumerate(values, start=1):
        where = jnp.where(value > largest, jnp.int16(number), where)
        largest = jnp.maximum(largest, value)
    reach = [(size - 1) // stride for size, stride in zip(window, strides, strict=True)]
    margin = ((reach[0], reach[0]), (reach[1], reach[1]))
    where, dy = _pad(where, margin, -1), _pad(dy, margin, 0)
    length, width = (dy.shape[axis + 1] - reach[axis] for axis in (0, 1))
    row, column = np.arange(strides[0])[:, None, None, None], np.arange(strides[1])[:, None]
    dx = jnp.zeros((), dy.dtype)
    for down, along in np.ndindex(reach[0] + 1, reach[1] + 1):
        # The positions of a block's pixels in the window that begins so many blocks before.
        i, j = row + down * strides[0], column + along * strides[1]
        inside = (i < window[0]) & (j < window[1])
        position = np.where(inside, i * window[1] + j, -2).astype(np.int16)
        top, left = reach[0] - down, reach[1] - along
        here = np.s_[:, top : top + length, None, left : left + width, None]
        dx += jnp.where(where[here] == position, dy[here], 0)
    dx = dx.reshape(len(dx), length * strides[0], width * strides[1], -1)
    return fit(dx, [-low for low, _ in pads], x.shape[1:3])


def _lax_pool_gradient(
    x: jax.Array, dy: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> jax.Array:
    return jax.vjp(lambda x: _lax_pool(x, window, strides, pads), x)[1](dy)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads, deterministic: bool) -> jax.Array:
    return lax.platform_dependent(
        x,
        cpu=lambda x: _cpu_pool(x, window, strides, pads),
        default=lambda x: _lax_pool(x, window, strides, pads),
    )


def _pool_forward(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads, deterministic: bool
) -> tuple[jax.Array, jax.Array]:
    return _pool(x, window, strides, pads, deterministic), x


def _pool_backward(
    window: Pair, strides: Pair, pads: Pads, deterministic: bool, x: jax.Array, dy: jax.Array
) -> tuple[jax.Array]:
    default = _pool_gradient_by_sums if deterministic else _lax_pool_gradient
    dx = lax.platform_dependent(
        x,
        dy,
        cpu=lambda x, dy: _pool_gradient_by_sums(x, dy, window, strides, pads),
        default=lambda x, dy: default(x, dy, window, strides, pads),
    )
    return (dx,)


_pool.defvjp(_pool_forward, _pool_backward)
