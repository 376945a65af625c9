"""What the commands share: plain messages, and errors in one sentence with exit status 2."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from absl import app, flags
from absl import logging as absl_logging

from flowers_jax.process.errors import Interrupted, ResultsIncomplete, UserError


def run(main: Callable[[Sequence[str]], None], messages: TextIO = sys.stdout) -> NoReturn:
    """Parses the flags and runs `main` with the arguments that are none.

    A `UserError` or a wrong flag ends the process with its sentence on stderr and status 2,
    `ResultsIncomplete` with 1; SIGINT, SIGTERM and SIGHUP end it with 130, 143 and 129.

    Args:
      main: takes the program's name and the arguments.
      messages: where this package's messages go, and other packages' warnings.
    """

    def guarded(arguments: Sequence[str]) -> None:
        os.environ["MPLBACKEND"] = "agg"  # a notebook's may not be installed here
        absl_logging.set_verbosity(absl_logging.ERROR)
        logging.raiseExceptions = False  # whoever reads the output may have closed it
        logging.basicConfig(format="%(message)s", stream=messages, force=True)
        logging.getLogger("flowers_jax").setLevel(logging.INFO)
        try:
            main(arguments)
        except UserError as error:
            _fail(error)
        except ResultsIncomplete as error:
            print("error:", error, file=sys.stderr)
            sys.exit(1)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains at its exit
            sys.exit(128 + signal.SIGPIPE)
        except Interrupted as error:
            print(error, file=sys.stderr)
            sys.exit(128 + error.signal)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    # ml_collections raises the plain ones for a missing config file or an unknown or ill-typed key.
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        cause = error.args[0] if error.args else None
        name = str(cause.args[0]).strip("'") if isinstance(cause, KeyError) else ""
        for argument in arguments:
            if name and f".{name}=" in argument:
                _fail(
                    f"{argument} names no setting; what a group does not hold yet is given as a "
                    "dictionary: --config.model_args=\"{'last_kernel': 5}\"."
                )
        of_none = "as a ConfigDict: `None`" in str(error)
        _fail(f"{error} {'A config file can set a group to None.' * of_none}")


def _fail(error: Exception | str) -> NoReturn:
    print("error:", " ".join(str(error).split("\n")).strip(), file=sys.stderr)
    sys.exit(2)
