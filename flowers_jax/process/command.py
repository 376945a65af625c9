"""What the commands share: plain messages, and errors in one sentence with exit status 2."""

import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Sequence
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


def require_choices(flag: flags.FlagHolder[list[str]], known: Collection[str]) -> list[str]:
    """The values of a list flag.

    Raises:
      UserError: it is empty, or one of its values is not known.
    """
    for value in flag.value or [""]:
        if value not in known:
            raise UserError(f"--{flag.name}={value}: choose from {', '.join(known)}.")
    return flag.value


def define_threshold(default: float) -> flags.FlagHolder[float]:
    """The flag `--threshold`, a probability."""
    meaning = "Say unsure where no class is as probable."
    threshold = flags.DEFINE_float("threshold", default, meaning, lower_bound=0, upper_bound=1)
    # absl's bounds let nan through.
    flags.register_validator("threshold", lambda value: not math.isnan(value), "must be in [0, 1].")
    return threshold


def _parse_flags(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        if " as a ConfigDict" not in str(error):
            _fail(error)
        given = str(error).partition(" as a ConfigDict")[0]
        _fail(f"{given} as a dictionary, as groups are given. A config file can set one to None.")
    # ml_collections raises these for a missing config file and for names that it cannot look up.
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        _fail(_about_name(arguments, str(error)) or error)


def _about_name(arguments: Sequence[str], said: str) -> str | None:
    """The setting whose name, given as `--config.KEY=VALUE`, ml_collections complains of."""
    unset = re.match(r'Override (\S+) can not .* field "(.+?)" is None', said)
    if unset:
        path, _, name = unset[1].rpartition(".")
        example = f"--config.{path}=\"{{'{name}': ...}}\""
        return f"{path} is not set, so --config.{path}.{name} is given as a dictionary: {example}."
    near = re.search('Did you mean "(.+?)"', said)
    for argument in arguments:
        if re.match(r"--?(no)?config\.", argument):
            key = argument.partition("=")[0].partition(".")[2]
            groups = key.split(".")[:-1]
            is_name = re.fullmatch(r"\w+(\.\w+)*", key)
            if not is_name or any(re.search(rf"\b{group}\b", said) for group in groups):
                return f"{argument} names no setting{f', did you mean {near[1]}?' if near else '.'}"
    return None


def _fail(error: Exception | str) -> NoReturn:
    print("error:", " ".join(str(error).split("\n")).strip(), file=sys.stderr)
    sys.exit(2)
