"""What the scripts share: runs of configs, one after another, each in a process of its own."""

import concurrent.futures
import dataclasses
import importlib
import logging
import multiprocessing
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flowers_jax import compilation, cpu, results
from flowers_jax.errors import Interrupted, UserError

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("flowers_jax.scripts")


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
        """The config as it is run."""
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))  # configs/ is not installed
        config = importlib.import_module(f"configs.{self.config}").get_config()
        for key, value in self.changes.items():
            *path, last = key.split(".")
            node = config
            for part in path:
                node = node[part]
            node[last] = ConfigDict(value) if isinstance(value, dict) else value
        return config


def train_all(runs: Iterable[Run]) -> dict[Path, str]:
    """Trains every run that is not finished; a failure does not stop the others, a signal does.

    Returns:
      For each run that failed its folder and why.
    """
    failures = {}
    for run in runs:
        try:
            if results.finished_summary(run.workdir, results.json_config(run.load())) is None:
                log.info("%s", run.workdir)
                _train_in_child(run)
        except (UserError, RuntimeError) as error:
            failures[run.workdir] = str(error)
            log.error("%s failed: %s", run.workdir, error)
    return failures


def _train_in_child(run: Run) -> None:
    """A process of its own gives its memory back, and takes nobody along when it dies."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            pool.submit(_train, run).result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError("its process was killed, perhaps for want of memory.") from error


def _train(run: Run) -> None:
    from flowers_jax.train import train_and_evaluate

    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("flowers_jax").setLevel(logging.INFO)
    cpu.reuse_memory()
    compilation.use_cache()
    try:
        train_and_evaluate(run.load(), run.workdir)
    except (UserError, Interrupted):
        raise
    except Exception as error:
        # Not every exception survives the way to the parent process.
        traceback.print_exc()
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
