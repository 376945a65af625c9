"""Runs of several seeds as one program: their arrays are stacked on a first axis.

A small network leaves most of an accelerator idle; there the steps are mapped over the replicas. It
fills a CPU, where convolutions mapped over their kernels take twice as long as one by one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
# Before 0.8 jax cannot map the gradient of a convolution over arrays that lie on a mesh.
CAN_MAP = jax.__version_info__ >= (0, 8)


def are_mapped() -> bool:
    """Whether a step is mapped over the replicas, and not taken for one after another."""
    return jax.default_backend() != "cpu"


@dataclasses.dataclass(frozen=True)
class Replicas:
    """How the arrays of `number` runs are held; those of a single one have no axis for it."""

    number: int

    def stack(self, trees: Sequence[Tree]) -> Tree:
        """One tree of the runs' trees."""
        if self.number == 1:
            return trees[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def take(self, tree: Tree, i: int) -> Tree:
        """The tree of run `i`."""
        return tree if self.number == 1 else jax.tree.map(lambda leaf: leaf[i], tree)

    def map(
        self, function: Callable[..., Tree], in_axes: int | tuple[int | None, ...] = 0
    ) -> Callable[..., Tree]:
        """`function` of one run as a function of all; `in_axes`, 0 or None, as of `jax.vmap`."""
        if self.number == 1:
            return function
        if are_mapped():
            return jax.vmap(function, in_axes)

        def one_by_one(*arguments: Tree) -> Tree:
            axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
            held = list(zip(arguments, axes, strict=True))
            return self.stack(
                [
                    function(*(a if axis is None else self.take(a, i) for a, axis in held))
                    for i in range(self.number)
                ]
            )

        return one_by_one

    def where(self, chosen: jax.Array, new: Tree, old: Tree) -> Tree:
        """The leaves of `new` for the runs that are `chosen`, bool `[number]`, else of `old`."""

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            shape = () if self.number == 1 else (self.number, *[1] * (new.ndim - 1))
            return jnp.where(chosen.reshape(shape), new, old)

        return jax.tree.map(choose, new, old)
