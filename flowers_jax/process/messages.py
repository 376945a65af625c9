"""Where this package's messages go when no command has said so."""

import contextlib
import logging
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """Prints the messages of this package, unless the program shows or silences them itself.

    Afterwards its loggers are as before.
    """
    package = logging.getLogger("flowers_jax")
    if package.level or (package.isEnabledFor(logging.INFO) and package.hasHandlers()):
        yield
        return
    handler = logging.StreamHandler(sys.stdout)
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False  # the host may show warnings, as Colab does
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(logging.NOTSET)
        package.propagate = True
