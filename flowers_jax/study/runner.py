"""What the scripts share: runs of configs, one after another, each in a process of its own."""

import concurrent.futures
import dataclasses
import importlib
import logging
import multiprocessing
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flowers_jax import compilation, cpu, replicas, results, study
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


def row(config_name: str, workdirs: Iterable[Path], failures: dict[Path, str]) -> dict[str, Any]:
    """`study.row` of the runs in these folders; its `state` tells what is missing or failed."""
    workdirs = sorted(workdirs)
    found = [results.read_summary(workdir) for workdir in workdirs]
    finished = [summary for summary in found if summary is not None]
    result = study.row(config_name, finished)
    if len(finished) < len(workdirs):
        result["state"] += f", {len(finished)} of {len(workdirs)} seeds finished"
    if not failures.keys().isdisjoint(workdirs):
        result["state"] += ", failed"
    return result


def train_all(runs: Iterable[Run]) -> dict[Path, str]:
    """Trains every run that is not finished; a failure does not stop the others, a signal does.

    On accelerators the seeds of a config are trained at once, if jax can; where that fails, for
    want of memory or because one of them does, they are trained one by one.

    Returns:
      For each run that failed its folder and why.
    """
    failures, pending = {}, []
    for run in runs:
        try:
            if results.finished_summary(run.workdir, results.json_config(run.load())) is None:
                pending.append(run)
        except UserError as error:
            failures[run.workdir] = str(error)
            log.error("%s failed: %s", run.workdir, error)
    # Asked in a child, as a GPU serves one process at a time.
    at_once = pending and replicas.CAN_MAP and _in_child(replicas.are_mapped)
    for group in _groups(pending) if at_once else _alone(pending):
        failures |= _train_group(group)
    return failures


def _train_group(group: list[Run]) -> dict[Path, str]:
    """Trains runs at once, or where that fails one by one; as `train_all`."""
    workdir = group[0].workdir if len(group) == 1 else group[0].workdir.parent
    log.info("%s%s", workdir, f", {len(group)} seeds at once" * (len(group) > 1))
    try:
        _in_child(_train, _together(group), workdir)
    except (UserError, RuntimeError) as error:
        if len(group) > 1:
            log.info("%d seeds at once failed: %s", len(group), error)
            return {k: v for run in group for k, v in _train_group([run]).items()}
        log.error("%s failed: %s", workdir, error)
        return {workdir: str(error)}
    return {}


def _groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that can be trained at once: the same but for consecutive seeds, none begun alone."""
    groups: list[list[Run]] = []
    for run in runs:
        if groups and _is_next(groups[-1][-1], run):
            groups[-1].append(run)
        else:
            groups.append([run])
    return [part for group in groups for part in ([group] if _is_new(group) else _alone(group))]


def _is_next(before: Run, run: Run) -> bool:
    seed = before.load().seed + 1
    expected = Run(
        before.config, {**before.changes, "seed": seed}, before.workdir.with_name(f"seed_{seed}")
    )
    return run == expected


def _is_new(group: list[Run]) -> bool:
    """Whether no run has begun, or all have together."""
    parent = group[0].workdir.parent
    if any((run.workdir / "checkpoints").exists() for run in group):
        return False
    if (parent / "config.json").exists():
        return results.read_config(parent) == results.json_config(_together(group))
    return not any(run.workdir.exists() for run in group)


def _alone(group: list[Run]) -> list[list[Run]]:
    return [[run] for run in group]


def _together(group: list[Run]) -> ConfigDict:
    config = group[0].load()
    config.num_replicas = len(group)
    return config


def _in_child(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """A process of its own gives its memory back, and takes nobody along when it dies.

    It is told of a SIGTERM to this process; of Ctrl-C the terminal tells both.
    """
    received = []

    def pass_on(number: int, frame: types.FrameType | None) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            child.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    spawn = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
            result = pool.submit(function, *arguments).result()
    except concurrent.futures.process.BrokenProcessPool as error:
        if not received:
            raise RuntimeError("its process was killed, perhaps for want of memory.") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:  # when the child did not listen: it was starting or done
        raise Interrupted(signal.SIGTERM, "the start or the end of a run")
    return result


def _train(config: ConfigDict, workdir: Path) -> None:
    from flowers_jax.train import train_and_evaluate

    logging.basicConfig(format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("flowers_jax").setLevel(logging.INFO)
    cpu.reuse_memory()
    compilation.use_cache()
    try:
        train_and_evaluate(config, workdir)
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
