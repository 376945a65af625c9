"""Several processes, on one host or many, that train one run together."""

import contextlib
import logging
from collections.abc import Iterator

import jax

from flowers_jax.errors import UserError

# A process that has been silent for so long is taken for dead, in seconds.
HEARTBEAT_TIMEOUT = 30


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Waits for the other processes; of all but the first only warnings are logged.

    Args:
      coordinator: HOST:PORT of the first process; None where the cluster knows (TPU pods, SLURM).
      num_processes: how many there are, as above.
      process_id: this one, from 0, as above.

    Raises:
      UserError: they do not find one another.
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


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Says so when the work in the block failed for the loss of another process."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise UserError(
            f"another process of this run has ended ({str(error).splitlines()[0][:200]}); start "
            "all of them again, and the run goes on from its last checkpoint."
        ) from error
