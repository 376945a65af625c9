"""Compiled programs are kept in the user's cache folder: a second start need not compile."""

import os
from pathlib import Path

import jax

MAX_BYTES = 2 * 10**9  # the least recently used go first


def use_cache() -> None:
    """Turns JAX's persistent cache on.

    The folder is the user's choice by `JAX_COMPILATION_CACHE_DIR`, otherwise `flowers_jax` in
    `XDG_CACHE_HOME` (`~/.cache`). Without a home that can be written nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "flowers_jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
