"""Trains many runs, several at once if asked, each in a process of its own.

A process of its own gives its memory back when it ends and takes nobody along when it dies. The
parent never starts a JAX backend, as a GPU may serve one process only.
"""

import contextlib
import dataclasses
import functools
import importlib
import logging
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flowers_jax import settings
from flowers_jax.ops import backend
from flowers_jax.process import interruption
from flowers_jax.process.errors import Interrupted, ResultsIncomplete, UserError
from flowers_jax.runs import run_folder
from flowers_jax.train import finished_summary, train_and_evaluate

# Seconds between two looks at the running processes; a signal waits as long to be passed on.
POLL_SECONDS = 0.5
# Settings that do not change what is compiled.
NOT_COMPILED = ("seed", "workdir", "study_run")

Failures = dict[Path, str]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A config with changed settings, and where its results go."""

    config: str  # name of a file in `configs/`, without its ending
    changes: dict[str, Any]  # dotted keys of the config and their values
    workdir: Path

    def load(self) -> ConfigDict:
        """The settings of the run, complete.

        Raises:
          UserError: there is no such config, or a changed key is in a group that does not exist.
        """
        try:
            module = importlib.import_module(f"configs.{self.config}")
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("configs"):
                raise
            raise UserError(
                f"there is no config {self.config!r}; give a name of configs/."
            ) from error
        config = settings.complete(module.get_config())
        try:
            config.update_from_flattened_dict(self.changes)
        except KeyError as error:
            example = "{'data.augment': {'zoom': 0.1}}"
            reason = error.args[0].rstrip(".")
            raise UserError(f"{reason}; give a group as a whole, such as {example}.") from error
        return settings.complete(config)  # a group that was None may be set now

    @functools.cached_property
    def program(self) -> dict[str, Any]:
        """What is compiled: runs that differ only in the rest find it in the compilation cache."""
        stored = run_folder.json_config(self.load())
        return {key: value for key, value in stored.items() if key not in NOT_COMPILED}


def shard(runs: Sequence[Run], part: str) -> Sequence[Run]:
    """Every N-th run from the I-th, counted from 1, for a part 'I/N'; UserError for other parts."""
    match = re.fullmatch(r"(\d+)/(\d+)", part, re.ASCII)
    first, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= step:
        raise UserError(f"--shard={part} is not I/N with I from 1 to N, such as 1/4.")
    return runs[first - 1 :: step]


def train_all(runs: Iterable[Run], jobs: int = 1) -> Failures:
    """Trains every run that is not finished, `jobs` at once; returns the failed ones and why.

    A failure does not stop the others, and a run that another process is training is skipped. After
    SIGINT, SIGTERM or SIGHUP no run starts, those that are running save their state, and it raises
    Interrupted.
    """
    failures: Failures = {}

    def note(run: Run, reason: object) -> None:
        failures[run.workdir] = str(reason)
        log.error("%s failed: %s", run.workdir, reason)

    waiting = []
    for run in runs:
        try:
            if finished_summary(settings.check(run.load()), run.workdir) is None:
                waiting.append(run)
        except UserError as error:
            note(run, error)
    spawn = multiprocessing.get_context("spawn")
    running: dict[Connection, tuple[Run, BaseProcess]] = {}
    places = []  # where a signal stopped a run
    received: list[int] = []
    passed_on = 0
    with contextlib.ExitStack() as handlers:
        for number in interruption.heeded():
            before = signal.signal(number, lambda number, frame: received.append(number))
            handlers.callback(signal.signal, number, before)
        while running or (waiting and not received):
            while len(running) < jobs and not received:
                following = next_run(waiting, [run for run, _ in running.values()])
                if following is None:
                    break
                waiting.remove(following)
                log.info("%s", following.workdir)
                connection, theirs = spawn.Pipe(duplex=False)
                child = spawn.Process(target=_train, args=(following, jobs > 1, theirs))
                child.start()
                theirs.close()
                running[connection] = following, child
            new = received[passed_on:]
            # The terminal tells everybody of Ctrl-C, and whoever closes it may tell twice.
            if signal.SIGTERM in new or (not passed_on and set(new) & set(interruption.HANGUPS)):
                for _, process in running.values():
                    process.terminate()
            passed_on = len(received)
            ready = wait(list(running), POLL_SECONDS)
            for connection in [connection for connection in running if connection in ready]:
                run, process = running.pop(connection)
                ending = _ending(connection, process)
                if received:
                    if isinstance(ending, Interrupted):
                        places.append(f"{run.workdir}, {ending.place}")
                elif isinstance(ending, run_folder.Busy):
                    log.info("skipped: %s", ending)
                elif ending is not None:
                    note(run, ending)
    if received:
        raise Interrupted(received[0], "; ".join(places) or "the start or the end of a run")
    return failures


def next_run(waiting: Sequence[Run], running: Sequence[Run]) -> Run | None:
    """The first run whose program no running one is still compiling.

    The first run of a program compiles it and fills the cache until its first epoch has ended.
    """
    compiled = [run.program for run in running if (run.workdir / "history.csv").exists()]
    compiling = [run.program for run in running if run.program not in compiled]
    return next((run for run in waiting if run.program not in compiling), None)


def _ending(connection: Connection, process: BaseProcess) -> Exception | None:
    """What ended the process, after it has; None if its run is finished."""
    try:
        return connection.recv()
    except EOFError:
        process.join()
        status = process.exitcode or 0
        hint = ", possibly out of memory" if status < 0 else "; see its message above"
        return UserError(f"its process died (exit status {status}){hint}")
    finally:
        process.join()


def _train(run: Run, shares: bool, connection: Connection) -> None:
    """Trains a run and reports what ended it, with an exception that can be pickled, or None."""
    name = f"{run.workdir.parent.name}/{run.workdir.name}: " if shares else ""
    logging.basicConfig(format=f"{name}%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("flowers_jax").setLevel(logging.INFO)
    if shares:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        # Several progress bars would overwrite one another.
        sys.stdout.isatty = lambda: False  # type: ignore[method-assign]
    backend.reuse_memory()
    backend.use_compilation_cache()
    ending: Exception | None = None
    try:
        train_and_evaluate(run.load(), run.workdir)
    except KeyboardInterrupt:
        ending = Interrupted(signal.SIGINT, "no epoch")  # before the first step
    except (Interrupted, ResultsIncomplete, UserError) as error:
        ending = error
    except Exception as error:
        traceback.print_exc()
        ending = UserError(f"{type(error).__name__}: {error}")
    connection.send(ending)
