"""What makes XLA's CPU backend faster: a setting of the process and options of the compiler."""

import ctypes
import functools
import sys

import jax

# jaxlib 0.8.3 and later give convolutions to YNNPACK, whose filter gradients are two to five times
# slower than those of Eigen; these are the operations that YNNPACK keeps.
_YNNPACK = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}


@functools.cache
def compiler_options() -> dict[str, str]:
    """For `jax.jit`, of programs with convolutions; empty where they do not apply."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_YNNPACK).lower().compile()
    except jax.errors.JaxRuntimeError:  # this jaxlib has no such option, and no YNNPACK
        return {}
    return _YNNPACK


def reuse_memory() -> None:
    """Makes glibc keep freed memory; does nothing where there is no glibc.

    Each step of XLA on CPU allocates its scratch memory anew. By default glibc maps and unmaps
    it, so that every step pays a page fault for each 4 KiB it touches. Call it before JAX starts
    its backend.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
    # One arena: the others cannot grow past 64 MiB, and would not reuse what is freed.
    mallopt(arena_max, 1)
