"""Signals as a value the loop asks for, so that it can finish a step and save."""

import signal
import threading
import types

import jax
import numpy as np
from jax.experimental import multihost_utils

# A closed terminal, which Windows does not know; a shell and the kernel may both tell of it.
HANGUPS = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
# Ctrl-C and the end of a job besides.
SIGNALS = [signal.SIGINT, signal.SIGTERM, *HANGUPS]
# How often several processes ask one another, in questions of the loop.
EVERY = 32


def heeded() -> list[int]:
    """Those of `SIGNALS` that the process was not started to ignore, as under nohup."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


class Interruption:
    """Remembers the first of `SIGNALS` inside its `with` block; a second one acts at once.

    A closed terminal does not count as the first. Outside the main thread, where Python delivers no
    signals, it remembers none.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._questions = 0
        self._common = 0  # what the processes last told one another
        self._handlers: dict[int, object] = {}

    @property
    def signal(self) -> int:
        """Number of the signal received, 0 before.

        When several processes train together, all of them must ask equally often; with every
        `EVERY`th question each learns of a signal that any of them received.
        """
        if jax.process_count() == 1:
            return self._signal
        self._questions += 1
        if not self._common and self._questions % EVERY == 0:
            self._common = int(multihost_utils.process_allgather(np.int32(self._signal)).max())
        return self._common

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in heeded():
                self._handlers[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._signal = self._signal or number
        if number not in HANGUPS:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers.clear()
