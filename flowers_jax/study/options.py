"""What the commands that train many runs have in common: flags, run folders, exit status."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.study import runner
from flowers_jax.study.runner import Failures, Run

_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds 0, 1, ... of each config.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "At most so many epochs: a short version.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_JOBS = flags.DEFINE_integer(
    "jobs", 1, "Runs at once, each in a process of its own.", lower_bound=1
)
_SHARD = flags.DEFINE_string(
    "shard", "1/1", "I/N: train only every N-th run, from the I-th; for several machines."
)


def run(main: Callable[[], None]) -> NoReturn:
    """Parses the flags, which --help shows as the script's own, and runs `main`."""

    def without_arguments(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            raise UserError(f"unexpected argument {arguments[1]!r}; --help shows the flags.")
        main()

    for flag in (_SEEDS, _EPOCHS, _DATA_DIR, _JOBS, _SHARD):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag.name])
    command.run(without_arguments)


def root(name: str) -> Path:
    """Where the runs go: `runs/<name>`; with --epochs it says so."""
    return Path("runs") / (f"{name}_{_EPOCHS.value}_epochs" if _EPOCHS.value else name)


def runs(config: str, changes: dict[str, Any], folder: Path) -> list[Run]:
    """A config with changed settings, once for each seed, in `folder/seed_<s>`."""
    common: dict[str, Any] = {}
    if _EPOCHS.value:
        common["max_epochs"] = _EPOCHS.value
    if _DATA_DIR.value:
        common["data.dir"] = str(Path(_DATA_DIR.value).expanduser().absolute())
    return [
        Run(config, {**changes, **common, "seed": seed}, folder / f"seed_{seed}")
        for seed in range(_SEEDS.value)
    ]


def train(groups: Iterable[Sequence[Run]], write: Callable[[Failures], None]) -> None:
    """Trains this shard of all runs; exits with status 1 if some failed.

    `write` writes the results, given the failures; it is called also when a signal came.
    """
    selected = runner.shard([run for group in groups for run in group], _SHARD.value)
    failures: Failures = {}
    try:
        failures = runner.train_all(selected, _JOBS.value)
    finally:
        write(failures)
    for workdir, reason in failures.items():
        print(f"failed: {workdir}: {reason}", file=sys.stderr)
    if failures:
        sys.exit(1)
