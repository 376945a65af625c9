"""Settings of the process that make XLA's CPU backend use the machine."""

import ctypes
import math
import os
import sys

import jax


def use_all_cores(batch_size: int) -> None:
    """Makes one JAX device of each core, as many as divide `batch_size`.

    XLA runs much of a program on one thread per device; a batch that is split among devices keeps
    all cores busy. Call it before JAX starts its backend; accelerators do not notice it, and
    JAX_NUM_CPU_DEVICES goes before it.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", math.gcd(batch_size, os.cpu_count() or 1))
    # Steps queued one behind the other can take the threads that an all-reduce waits for: XLA then
    # ends the process after a minute ("Termination timeout for all reduce").
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def reuse_memory() -> bool:
    """Make glibc keep freed memory, and return whether it agreed.

    Each step of XLA on CPU allocates its scratch memory anew.  By default glibc maps
    and unmaps it, so every step pays a page fault for each 4 KiB it touches.  Call
    this before JAX starts its backend; it does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    # One arena: the others cannot grow past 64 MiB, and would not reuse what is freed.
    settings = ((m_trim_threshold, 2**31 - 1), (m_mmap_max, 0), (m_arena_max, 1))
    return all([mallopt(option, value) == 1 for option, value in settings])
