"""Several processes, on one host or many, that train one run together."""

import contextlib
import logging
from collections.abc import Iterator

import jax

from flowers_jax.process.errors import UserError

# Seconds of silence after which a process is taken for dead.
HEARTBEAT_TIMEOUT = 30


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Waits for the other processes; all but the first log only warnings.

    Args:
      coordinator: HOST:PORT of the first process; None if the cluster knows it (TPU pods, SLURM).
      num_processes: number of processes, or None likewise.
      process_id: number of this one, from 0, or None likewise.

    Raises:
      UserError: the processes do not find one another.
    """
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes cannot be joined ({str(error).splitlines()[0][:200]}); give "
            "--coordinator=HOST:PORT, --num_processes and --process_id."
        ) from error
    if jax.process_index() > 0:
        logging.getLogger("flowers_jax").setLevel(logging.WARNING)


def is_joined() -> bool:
    """Whether this process trains with others; does not start JAX's backend if it is alone."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Explains an error in the block that comes from the loss of another process."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise UserError(
            f"another process of this run has ended ({str(error).splitlines()[0][:200]}); start "
            "all of them again, and the run goes on from its last checkpoint."
        ) from error
