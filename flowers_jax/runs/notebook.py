"""What a notebook needs to show a run as a terminal does."""

import logging
import sys
import time
from typing import Any

from flowers_jax.process.errors import Interrupted, ResultsIncomplete, UserError

# Least seconds between two pictures of the bar.
INTERVAL = 0.5


class NotebookDisplay:
    """One output of a notebook's cell, replaced in place: all epochs of the cell share it.

    rich's own display would need ipywidgets, and would swallow what is logged beside it.
    """

    _current: tuple[int, Any] | None = None  # number of the execution, and handle of its output

    def __init__(self) -> None:
        self._last = 0.0

    def is_due(self) -> bool:
        """Whether the last picture is older than `INTERVAL`."""
        return time.monotonic() - self._last >= INTERVAL

    def show(self, picture: object) -> None:
        """Shows it instead of the one before."""
        from IPython import display, get_ipython

        execution = get_ipython().execution_count
        if NotebookDisplay._current and NotebookDisplay._current[0] == execution:
            NotebookDisplay._current[1].update(picture)
        else:
            handle = display.display(picture, display_id=True)
            NotebookDisplay._current = execution, handle
        self._last = time.monotonic()


def set_up() -> None:
    """Shows the messages of this package in a notebook, and its errors for people as a sentence.

    Other loggers, and other errors, are left alone. Calling it again changes nothing.
    """
    from IPython import get_ipython

    package = logging.getLogger("flowers_jax")
    package.setLevel(logging.INFO)
    package.propagate = False  # the host may have a handler of its own, as Colab has
    if not package.handlers:
        package.addHandler(logging.StreamHandler(sys.stdout))

    def show(
        shell: object, kind: type, error: BaseException, traceback: object, tb_offset: object = None
    ) -> None:
        print(error, file=sys.stderr)

    get_ipython().set_custom_exc((UserError, ResultsIncomplete, Interrupted), show)
