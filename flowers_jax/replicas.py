"""Runs of several seeds as one: their arrays stacked on a first axis, their steps mapped over it.

A small network leaves most of an accelerator idle; its replicas fill it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
# Before 0.8 jax cannot map the gradient of a convolution over arrays that lie on a mesh.
SUPPORTED = jax.__version_info__ >= (0, 8)


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
        """`function` of one run as a function of all; `in_axes` as of `jax.vmap`."""
        return function if self.number == 1 else jax.vmap(function, in_axes)

    def where(self, chosen: jax.Array, new: Tree, old: Tree) -> Tree:
        """The leaves of `new` for the runs that are `chosen`, bool `[number]`, else of `old`."""

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            shape = () if self.number == 1 else (self.number, *[1] * (new.ndim - 1))
            return jnp.where(chosen.reshape(shape), new, old)

        return jax.tree.map(choose, new, old)
