"""The history for TensorBoard; a file that cannot grow costs the picture and not the training."""

import logging
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flowers_jax.runs.history import Row

log = logging.getLogger(__name__)


class Events:
    """An event file of one process.

    tensorboardX' own `SummaryWriter` writes in a thread; when that fails, training waits for it
    for ever.

    Args:
      workdir: the run folder.
      first_epoch: later ones in the files of earlier processes do not count.
    """

    def __init__(self, workdir: Path, first_epoch: int) -> None:
        self._writer: EventsWriter | None = None
        try:
            self._writer = EventsWriter(str(workdir / "events"))
            self._writer.write_event(
                Event(step=first_epoch, session_log=SessionLog(status=SessionLog.START))
            )
        except OSError as error:
            self._give_up(error)

    def add(self, row: Row) -> None:
        """Writes the row of an epoch."""
        if self._writer is None:
            return
        try:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.write_event(
                        Event(
                            wall_time=time.time(),
                            step=int(row["epoch"]),
                            summary=summary.scalar(name, value),
                        )
                    )
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("no more events for TensorBoard: %s", error.strerror)
        self._writer = None
