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


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is to be trained.

    Attributes:
      workdir: the run folder.
      config: its complete settings.
    """

    workdir: Path
    config: ConfigDict

    @functools.cached_property
    def program(self) -> dict[str, Any]:
        """What is compiled: jobs that differ only in the rest find it in the compilation cache."""
        stored = folder.json_config(self.config)
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
    running: list[_Child] = []
    places = []  # where a signal stopped a run
    passed_on = 0
    with _signals() as received:
        while running or (waiting and not received):
            while len(running) < jobs and not received:
                job = next_job(waiting, [child.job for child in running])
                if job is None:
                    break
                waiting.remove(job)
                log.info("%s", job.workdir)
                running.append(_Child(job, shares=jobs > 1))
            if signal.SIGTERM in received[passed_on:]:  # the terminal tells everybody of Ctrl-C
                for child in running:
                    child.process.terminate()
            passed_on = len(received)
            ready = wait([child.outcomes for child in running], POLL_SECONDS)
            for child in [child for child in running if child.outcomes in ready]:
                running.remove(child)
                workdir = child.job.workdir
                kind, sentence = child.outcome()
                if received:
                    places += [f"{workdir}, {sentence}"] if kind == "interrupted" else []
                elif kind == "busy":
                    log.info("skipped: %s", sentence)
                elif kind != "done":
                    _note(failures, workdir, sentence)
    if received:
        raise Interrupted(received[0], "; ".join(places) or "the start or the end of a run")
    return failures


def next_job(waiting: Sequence[Job], running: Sequence[Job]) -> Job | None:
    """The first job whose program no running job is still compiling.

    The first job of a program compiles it and fills the cache until its first epoch has ended.
    """
    compiling = [job.program for job in running if not (job.workdir / "history.csv").exists()]
    return next((job for job in waiting if job.program not in compiling), None)


def _unfinished(runs: Iterable[Run], failures: Failures) -> Iterator[Job]:
    for run in runs:
        try:
            config = run.load()
            if finished_summary(config, run.workdir) is None:
                yield Job(run.workdir, config)
        except UserError as error:
            _note(failures, run.workdir, str(error))


def _note(failures: Failures, workdir: Path, reason: str) -> None:
    failures[workdir] = reason
    log.error("%s failed: %s", workdir, reason)


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


class _Child:
    """A process that trains one job.

    Args:
      job: what it trains.
      shares: whether other processes train at the same time.

    Attributes:
      process: the process.
      outcomes: ready when the process has something to say or has ended.
    """

    def __init__(self, job: Job, shares: bool) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.job = job
        self.outcomes, theirs = spawn.Pipe(duplex=False)
        self.process = spawn.Process(target=_train, args=(job, shares, theirs))
        self.process.start()
        theirs.close()

    def outcome(self) -> tuple[str, str]:
        """'done', 'interrupted', 'busy' or 'failed', and a sentence; waits for the process."""
        try:
            outcome = self.outcomes.recv()
        except EOFError:
            outcome = None
        self.process.join()
        if outcome is not None:
            return outcome
        status = self.process.exitcode
        return "failed", f"its process was killed (exit status {status}), possibly out of memory"


def _train(job: Job, shares: bool, outcomes: Connection) -> None:
    """Trains one job and reports its outcome as text: not every exception can be pickled."""
    name = f"{job.workdir.parent.name}/{job.workdir.name}: " if shares else ""
    logging.basicConfig(format=f"{name}%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("flowers_jax").setLevel(logging.INFO)
    if shares:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        os.environ["TERM"] = "dumb"  # several progress bars would overwrite one another
    backend.reuse_memory()
    backend.use_compilation_cache()
    try:
        train_and_evaluate(job.config, job.workdir)
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
