"""Settings of XLA's backends: compiler options, memory, and a cache of compiled programs."""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from flowers_jax.process.errors import UserError

Options = dict[str, str | bool | int]

# jaxlib 0.8.3 and later give convolutions to YNNPACK, whose filter gradients are two to five times
# slower than Eigen's; these are the operations that YNNPACK keeps.
# LLVM's first level compiles in two thirds of the time, and the steps are as fast.
CPU_OPTIONS: Options = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    ),
    "xla_backend_optimization_level": 1,
}
# XLA times some 33 Triton kernels for each matrix product and, from jaxlib 0.8.3, fusions too. It
# also times the kernels of convolutions, whose steps are 60 times slower otherwise; level 1 does so
# without checking each kernel's result (docs/accelerators.md has the figures).
GPU_OPTIONS: Options = {
    "xla_gpu_experimental_enable_fusion_autotuner": False,
    "xla_gpu_enable_triton_gemm": False,
    "xla_gpu_autotune_level": 1,
}
# The first kernel that repeats its results instead of the fastest one.
DETERMINISTIC_GPU_OPTIONS: Options = {"xla_gpu_exclude_nondeterministic_ops": True}
MAX_CACHE_BYTES = 2 * 10**9  # the least recently used programs are evicted first


def compiler_options(deterministic: bool = False) -> Options:
    """Options for `jax.jit` of training and evaluation steps on the default backend.

    Those that the user's `XLA_FLAGS` name are left to them.

    Args:
      deterministic: whether the same run must give the same bits; on CPU and TPU it always does.
    """
    options = {"cpu": CPU_OPTIONS, "gpu": GPU_OPTIONS}.get(jax.default_backend(), {})
    if deterministic and jax.default_backend() == "gpu":
        options = options | DETERMINISTIC_GPU_OPTIONS
    named = os.environ.get("XLA_FLAGS", "")
    return {k: v for k, v in options.items() if k not in named and is_known(k, v)}


@functools.cache
def is_known(option: str, value: str | bool | int) -> bool:
    """Whether this jaxlib has the compiler option."""
    try:
        jax.jit(lambda: 0, compiler_options={option: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def require_devices() -> None:
    """Raises UserError if JAX finds no device of the platform that it is told to use."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX has no better word for some platforms
        asked = os.environ.get("JAX_PLATFORMS", "any platform")
        raise UserError(
            f"JAX finds no device of {asked}; unset JAX_PLATFORMS, or install jax for it, such as "
            "jax[cuda12]."
        ) from error


@contextlib.contextmanager
def full_memory_named() -> Iterator[None]:
    """Turns XLA's error for memory that is full, a device's or this machine's, into a sentence."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        kind, _, what = str(error).partition(": ")
        if kind != "RESOURCE_EXHAUSTED":
            raise
        raise UserError(
            f"there is not enough memory ({what.splitlines()[0][:200].rstrip('.')}); take a "
            "smaller batch_size, or fewer runs at once."
        ) from error


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start need not compile.

    The folder is `JAX_COMPILATION_CACHE_DIR` if set, otherwise `flowers_jax` in `XDG_CACHE_HOME`
    (default `~/.cache`). Without a writable home nothing is kept.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "flowers_jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_CACHE_BYTES)


def reuse_memory() -> None:
    """Makes the steps on a CPU share the memory that they work in; call it before JAX starts.

    XLA allocates a step's scratch memory when the step is dispatched, so steps that wait for others
    would hold theirs already. By default glibc maps and unmaps it, so that every step pays a page
    fault for each 4 KiB it touches; where there is glibc, it keeps freed memory instead.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
    # One arena: the others cannot grow past 64 MiB and would not reuse what is freed.
    mallopt(arena_max, 1)
