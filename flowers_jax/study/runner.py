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
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flowers_jax import settings
from flowers_jax.ops import backend
from flowers_jax.process.errors import Interrupted, UserError
from flowers_jax.runs import folder
from flowers_jax.train import finished_summary, train_and_evaluate

# Seconds between two looks at the running processes; a signal waits as long to be passed on.
POLL_SECONDS = 0.5
# Settings that do not change what is compiled.
NOT_COMPILED = ("seed", "workdir", "study_run")

Failures = dict[Path, str]

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
    """A config with changed settings, and where its results go.

    Attributes:
      config: name of a file in `configs/`, without its ending.
      changes: dotted keys of the config and their values.
      workdir: the run folder.
    """

    config: str
    changes: dict[str, Any]
    workdir: Path

    def load(self) -> ConfigDict:
        """The settings of the run, complete."""
        config = importlib.import_module(f"configs.{self.config}").get_config()
        config = settings.complete(config)
        config.update_from_flattened_dict(self.changes)
        return settings.complete(config)  # a group that was None may be set now

    @functools.cached_property
    def program(self) -> dict[str, Any]:
        """What is compiled: runs that differ only in the rest find it in the compilation cache."""
        stored = folder.json_config(self.load())
        return {key: value for key, value in stored.items() if key not in NOT_COMPILED}


def shard(runs: Sequence[Run], part: str) -> Sequence[Run]:
    """Every N-th run from the I-th, for a part 'I/N'; I counts from 1.

    Raises:
      UserError: the part is not of this form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part, re.ASCII)
    first, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= step:
        raise UserError(f"--shard={part} is not I/N with I from 1 to N, such as 1/4.")
    return runs[first - 1 :: step]


def train_all(runs: Iterable[Run], jobs: int = 1) -> Failures:
    """Trains every run that is not finished, `jobs` at once.

    A failure does not stop the others, and a run that another process is training is skipped. After
    a signal no further run starts, and those that are running save their state.

    Returns:
      For each run that failed its folder and why.

    Raises:
      Interrupted: a SIGINT or SIGTERM came.
    """
    failures: Failures = {}
    waiting = list(_unfinished(runs, failures))
    running: dict[Connection, tuple[Run, BaseProcess]] = {}
    places = []  # where a signal stopped a run
    passed_on = 0
    with _signals() as received:
        while running or (waiting and not received):
            while len(running) < jobs and not received:
                run = next_run(waiting, [run for run, _ in running.values()])
                if run is None:
                    break
                waiting.remove(run)
                log.info("%s", run.workdir)
                running |= _start(run, shares=jobs > 1)
            if signal.SIGTERM in received[passed_on:]:  # the terminal tells everybody of Ctrl-C
                for _, process in running.values():
                    process.terminate()
            passed_on = len(received)
            ready = wait(list(running), POLL_SECONDS)
            for outcomes in [outcomes for outcomes in running if outcomes in ready]:
                run, process = running.pop(outcomes)
                kind, sentence = _outcome(outcomes, process)
                if received:
                    places += [f"{run.workdir}, {sentence}"] if kind == "interrupted" else []
                elif kind == "busy":
                    log.info("skipped: %s", sentence)
                elif kind != "done":
                    _note(failures, run, sentence)
    if received:
        raise Interrupted(received[0], "; ".join(places) or "the start or the end of a run")
    return failures


def next_run(waiting: Sequence[Run], running: Sequence[Run]) -> Run | None:
    """The first run whose program no running one is still compiling.

    The first run of a program compiles it and fills the cache until its first epoch has ended.
    """
    compiling = [run.program for run in running if not (run.workdir / "history.csv").exists()]
    return next((run for run in waiting if run.program not in compiling), None)


def _unfinished(runs: Iterable[Run], failures: Failures) -> Iterator[Run]:
    for run in runs:
        try:
            if finished_summary(run.load(), run.workdir) is None:
                yield run
        except UserError as error:
            _note(failures, run, str(error))


def _note(failures: Failures, run: Run, reason: str) -> None:
    failures[run.workdir] = reason
    log.error("%s failed: %s", run.workdir, reason)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that came inside the block, which they do not interrupt."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _start(run: Run, shares: bool) -> dict[Connection, tuple[Run, BaseProcess]]:
    """A process that trains the run, by the connection on which it says how that ended."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_train, args=(run, shares, theirs))
    process.start()
    theirs.close()
    return {ours: (run, process)}


def _outcome(outcomes: Connection, process: BaseProcess) -> tuple[str, str]:
    """'done', 'interrupted', 'busy' or 'failed', and a sentence; waits for the process to end."""
    try:
        outcome = outcomes.recv()
    except EOFError:
        outcome = None
    process.join()
    status = process.exitcode or 0
    hint = ", possibly out of memory" if status < 0 else "; see its message above"
    return outcome or ("failed", f"its process died (exit status {status}){hint}")


def _train(run: Run, shares: bool, outcomes: Connection) -> None:
    """Trains a run and reports the outcome as text: not every exception can be pickled."""
    name = f"{run.workdir.parent.name}/{run.workdir.name}: " if shares else ""
    logging.basicConfig(format=f"{name}%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("flowers_jax").setLevel(logging.INFO)
    if shares:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        # Several progress bars would overwrite one another.
        sys.stdout.isatty = lambda: False  # type: ignore[method-assign]
    backend.reuse_memory()
    backend.use_compilation_cache()
    try:
        train_and_evaluate(run.load(), run.workdir)
        outcome = "done", ""
    except Interrupted as error:
        outcome = "interrupted", error.place
    except KeyboardInterrupt:  # before the first step
        outcome = "interrupted", "no epoch"
    except folder.Busy as error:
        outcome = "busy", str(error)
    except UserError as error:
        outcome = "failed", str(error)
    except Exception as error:
        traceback.print_exc()
        outcome = "failed", f"{type(error).__name__}: {error}"
    outcomes.send(outcome)
