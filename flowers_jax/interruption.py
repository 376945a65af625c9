"""SIGINT and SIGTERM as a value that the loop asks for, so that it can finish a step and save."""

import signal
import threading
import types

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interruption:
    """Remembers the first SIGINT or SIGTERM inside its `with` block; a second one acts at once.

    Outside the main thread, where Python delivers no signals, it remembers none.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._handlers: dict[int, object] = {}

    @property
    def signal(self) -> int:
        """The number of the signal that came, 0 before.

        Where several processes train together all must ask, and learn of a signal to any of them.
        """
        if jax.process_count() == 1:
            return self._signal
        return int(multihost_utils.process_allgather(np.int32(self._signal)).max())

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
