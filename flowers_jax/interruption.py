"""SIGINT and SIGTERM as a value that the loop asks for, so that it can finish a step and save."""

import signal
import threading
import types


class Interruption:
    """Remembers the first SIGINT or SIGTERM inside its `with` block; a second one acts at once.

    Outside the main thread, where Python delivers no signals, it remembers none.

    Attributes:
      signal: the number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
