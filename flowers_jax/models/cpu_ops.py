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
CHUNK = 8  # samples


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


def _pad(x: jax.Array, pads: Pads, value: float) -> jax.Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), ((0, 0, 0), *((*p, 0) for p in pads), (0, 0, 0)))


def _lax_conv(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> jax.Array:
    return lax.conv_general_dilated(
        x, w, strides, pads, dimension_numbers=NHWC, precision=precision
    )


def _cpu_conv(
    x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, precision: lax.PrecisionLike
) -> jax.Array:
    height, (low, high) = w.shape[0], pads[0]
    if strides != (1, 1):
        return _lax_conv(x, w, strides, pads, precision)
    if w.shape[:2] == (1, 1) and not any(map(any, pads)):
        return lax.dot_general(x, w[0, 0], (((3,), (0,)), ((), ())), precision=precision)
    # XLA gives convolutions padded by less than the kernel's size to a library (YNNPACK) that is
    # two to four times slower here than the one it has for the rest (Eigen): pad by as much, and
    # drop the rows which that adds.
    rows = x.shape[1] + low + high - height + 1
    pads = ((low, max(high, height - low)), pads[1])
    return _lax_conv(x, w, strides, pads, precision)[:, :rows]


def _cpu_filter_gradient(
    x: jax.Array,
    w: jax.Array,
    dy: jax.Array,
    strides: Pair,
    pads: Pads,
    precision: lax.PrecisionLike,
) -> jax.Array:
    """Patches of `x`, transposed, times `dy`, a few samples at a time."""
    options = {"shape": w.shape, "strides": strides, "precision": precision}
    x = _pad(x, pads, 0)
    if x.shape[0] % CHUNK or x.shape[0] == CHUNK:
        return _patch_products(x, dy, **options).astype(w.dtype)
    # Small chunks stay in cache and touch little fresh memory. Taking every n-th sample makes a
    # chunk of a batch that is sharded over devices lie on all of them.
    x, dy = (a.reshape(CHUNK, -1, *a.shape[1:]) for a in (x, dy))

    def add(i: jax.Array, total: jax.Array) -> jax.Array:
        part = (lax.dynamic_index_in_dim(a, i, axis=1, keepdims=False) for a in (x, dy))
        return total + _patch_products(*part, **options)

    zeros = jnp.zeros(w.shape, jnp.float32)
    return lax.fori_loop(0, x.shape[1], add, zeros).astype(w.dtype)


def _patch_products(
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    strides: Pair,
    precision: lax.PrecisionLike,
) -> jax.Array:
    """The filter's gradient, by a matrix product for each row of the kernel."""
    (height, width, features_in, features), (_, rows, columns, _) = shape, dy.shape
    sy, sx = strides
    # Every row of the kernel takes its patches from these, which are `height` times smaller than
    # patches of the whole kernel.
    patches = jnp.concatenate(
        [x[:, :, j : j + (columns - 1) * sx + 1 : sx] for j in range(width)], axis=-1
    )
    # Two-dimensional operands, or XLA writes out a transposed copy of the patches.
    dy = dy.reshape(-1, features)
    products = [
        lax.dot_general(
            patches[:, i : i + (rows - 1) * sy + 1 : sy].reshape(-1, width * features_in),
            dy,
            (((0,), (0,)), ((), ())),
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        for i in range(height)
    ]
    return jnp.stack(products).reshape(shape)


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
    if strides == (1, 1):
        # As `lax` does it: a convolution of `dy` with the kernel turned round.
        turned = jnp.swapaxes(w[::-1, ::-1], 2, 3)
        above, left = (
            (k - 1 - low, k - 1 - high) for k, (low, high) in zip(w.shape[:2], pads, strict=True)
        )
        dx = _conv(dy, turned, strides, (above, left), precision)
    else:
        (dx,) = jax.linear_transpose(lambda x: _lax_conv(x, w, **options), x)(dy)
    return dx, dw


_conv.defvjp(_conv_forward, _conv_backward)


def _lax_pool(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> jax.Array:
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def _windows(x: jax.Array, window: Pair, strides: Pair, pads: Pads) -> Iterator[jax.Array]:
    """For each position in the window, what all windows have there."""
    x = _pad(x, pads, -jnp.inf)
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
