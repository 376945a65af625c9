"""Convolution and max pooling that are fast on XLA's CPU backend.

Both give what `lax` gives, in value and gradient, up to rounding. On GPU and TPU they lower to
XLA's own; the choice is made when a program is lowered, from where it will run. Images are
`[batch, height, width, channels]`.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
NHWC = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    **options: Any,  # noqa: ANN401
) -> jax.Array:
    """`lax.conv_general_dilated` of images, undilated and in one group, as `nn.Conv` calls it."""
    strides = tuple(window_strides)
    return _conv(
        lhs, rhs, strides, _pads(lhs, rhs.shape[:2], strides, padding), options.get("precision")
    )


def max_pool(
    x: jax.Array, window: Pair, strides: Pair, padding: str | Sequence[Pair] = "VALID"
) -> jax.Array:
    """`flax.linen.max_pool`; the gradient of a window goes to the first of its largest values."""
    return _pool(x, window, strides, _pads(x, window, strides, padding))


def _pads(
    x: jax.Array, window: Sequence[int], strides: Sequence[int], padding: str | Sequence[Pair]
) -> Pads:
    """The padding before and after, of height and of width."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    height, width = ((int(low), int(high)) for low, high in padding)
    return height, width


def _lax_conv(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, strides, pads, dimension_numbers=NHWC, precision=precision
    )


def _cpu_conv(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> jax.Array:
    if any(map(any, pads)) or w.shape[:2] == (1, 1):
        return _lax_conv(x, w, strides, pads, precision)
    # XLA gives convolutions without padding to a library two to four times slower than the one
    # that it uses for padded ones; so pad, and drop what that adds.
    rows = (x.shape[1] - w.shape[0]) // strides[0] + 1
    return _lax_conv(x, w, strides, ((0, 1), (0, 0)), precision)[:, :rows]


def _cpu_filter_gradient(
    x: jax.Array,
    w: jax.Array,
    dy: jax.Array,
    strides: Pair,
    pads: Pads,
    precision: lax.PrecisionLike,
) -> jax.Array:
    """Patches of `x`, transposed, times `dy`: one matrix product per row of the kernel."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    (height, width), (rows, columns), (sy, sx) = w.shape[:2], dy.shape[1:3], strides
    # Every row of the kernel takes its patches from these, which are `height` times smaller than
    # patches of the whole kernel.
    patches = jnp.concatenate(
        [x[:, :, j : j + (columns - 1) * sx + 1 : sx] for j in range(width)], axis=-1
    )
    gradients = [
        lax.dot_general(
            patches[:, i : i + (rows - 1) * sy + 1 : sy],
            dy,
            (((0, 1, 2), (0, 1, 2)), ((), ())),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        for i in range(height)
    ]
    return jnp.stack(gradients).reshape(w.shape).astype(w.dtype)


def _lax_filter_gradient(
    x: jax.Array,
    w: jax.Array,
    dy: jax.Array,
    strides: Pair,
    pads: Pads,
    precision: lax.PrecisionLike,
) -> jax.Array:
    conv = functools.partial(_lax_conv, x, strides=strides, pads=pads, precision=precision)
    return jax.linear_transpose(conv, w)(dy)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> jax.Array:
    options = {"strides": strides, "pads": pads, "precision": precision}
    return lax.platform_dependent(
        x,
        w,
        cpu=functools.partial(_cpu_conv, **options),
        default=functools.partial(_lax_conv, **options),
    )


def _conv_forward(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, w, strides, pads, precision), (x, w)


def _conv_backward(
    strides: Pair,
    pads: Pads,
    precision: lax.PrecisionLike,
    residuals: tuple[jax.Array, jax.Array],
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, w = residuals
    options = {"strides": strides, "pads": pads, "precision": precision}
    dw = lax.platform_dependent(
        x,
        w,
        dy,
        cpu=functools.partial(_cpu_filter_gradient, **options),
        default=functools.partial(_lax_filter_gradient, **options),
    )
    # XLA's own input gradient is fast already.
    (dx,) = jax.linear_transpose(lambda x: _lax_conv(x, w, **options), x)(dy)
    return dx, dw


_conv.defvjp(_conv_forward, _conv_backward)


def _lax_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _windows(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> Iterator[jax.Array]:
    """For each position in the window, what all windows have there."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    (height, width), (sy, sx) = window, strides
    end_y, end_x = x.shape[1] - height + 1, x.shape[2] - width + 1
    for i, j in itertools.product(range(height), range(width)):
        yield x[:, i : i + end_y : sy, j : j + end_x : sx]


def _cpu_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return functools.reduce(jnp.maximum, _windows(x, window, strides, pads))


def _cpu_pool_gradient(
    x: jax.Array, dy: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> jax.Array:
    """Spreads `dy` to where each maximum was; XLA's own gradient uses one thread."""
    values = _windows(x, window, strides, pads)
    largest, where = next(values), jnp.zeros(dy.shape, jnp.int16)
    for position, value in enumerate(values, start=1):
        where = jnp.where(value > largest, jnp.int16(position), where)
        largest = jnp.maximum(largest, value)
    dx = jnp.zeros_like(x)
    offsets = itertools.product(range(window[0]), range(window[1]))
    for position, offset in enumerate(offsets):
        edges = [(0, 0, 0)]
        for axis in (0, 1):
            before = offset[axis] - pads[axis][0]
            span = (dy.shape[axis + 1] - 1) * strides[axis] + 1
            edges.append((before, x.shape[axis + 1] - before - span, strides[axis] - 1))
        share = jnp.where(where == position, dy, 0)
        dx += lax.pad(share, jnp.zeros((), dy.dtype), (*edges, (0, 0, 0)))
    return dx


def _lax_pool_gradient(
    x: jax.Array, dy: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> jax.Array:
    return jax.vjp(lambda x: _lax_pool(x, window, strides, pads), x)[1](dy)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    options = {"window": window, "strides": strides, "pads": pads}
    return lax.platform_dependent(
        x,
        cpu=functools.partial(_cpu_pool, **options),
        default=functools.partial(_lax_pool, **options),
    )


def _pool_forward(
    x: jax.Array, window: Pair, strides: Pair, pads: Pads
) -> tuple[jax.Array, jax.Array]:
    return _pool(x, window, strides, pads), x


def _pool_backward(
    window: Pair, strides: Pair, pads: Pads, x: jax.Array, dy: jax.Array
) -> tuple[jax.Array]:
    options = {"window": window, "strides": strides, "pads": pads}
    dx = lax.platform_dependent(
        x,
        dy,
        cpu=functools.partial(_cpu_pool_gradient, **options),
        default=functools.partial(_lax_pool_gradient, **options),
    )
    return (dx,)


_pool.defvjp(_pool_forward, _pool_backward)
