"""A function in a process of its own, which may die."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import clone  # noqa: F401

from flowers_jax.process.errors import UserError


def call(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """What `function` returns or raises; UserError if its process dies."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process of {function.__name__} has died, possibly out of memory; what it "
                "said is above."
            ) from error
