"""The commands that train many runs: their flags, run folders, tables and exit status.

A run of the study goes to runs/<study>/<config>/seed_<s>, one of an ablation to
runs/ablation_<name>/<variant>/seed_<s>, one fold of N to
runs/folds_<N>/<config>/fold_<i>/seed_<s>; with --epochs the first folder's name ends in
_<N>_epochs.
"""

import fnmatch
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags

from flowers_jax import reference
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files, history, plots, run_folder
from flowers_jax.study import folds, runner, table
from flowers_jax.study.runner import Failures, Run
from flowers_jax.study.sweeps import Sweep, Variant

Runs = Mapping[str, Sequence[Run]]
Write = Callable[[Runs, Failures], None]
STUDY = tuple(run["id"] for run in reference.study()["runs"])
CONFIGS = (*STUDY, "googlenet_adam", "googlenet_adagrad")  # which the study left out
# Columns of an ablation's table, from `table.row`.
COLUMNS = (
    "seeds max_val_accuracy restored_val_accuracy interval_low interval_high max_train_accuracy "
    "epochs best_epoch minutes state"
).split()

_count = functools.partial(flags.DEFINE_integer, lower_bound=1)
_SEEDS = _count("seeds", 1, "Seeds 0, 1, ... of each config.")
_EPOCHS = _count("epochs", None, "At most so many epochs: a short version.")
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_JOBS = _count("jobs", 1, "Runs at once, each in a process of its own.")
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


def study(patterns: Sequence[str] | None, name: str | None) -> None:
    """Trains what is missing of the selected configs in `runs/<name>` and writes the table."""
    root = Path("runs") / name if name else _root("study")

    def write(runs: Runs, failures: Failures) -> None:
        rows = []
        for config in CONFIGS:
            found = {p for p in (root / config).glob("seed_*") if not run_folder.is_set_aside(p)}
            workdirs = found | {run.workdir for run in runs.get(config, [])}
            if workdirs or config in STUDY:
                rows.append(table.row_of_runs(config, workdirs, failures))
        table.write(root, rows)
        print(f"the table is in {root / 'table.md'}")

    _train(root, {config: (config, {}) for config in select(patterns)}, write)


def cross_validate(patterns: Sequence[str] | None, name: str | None, num_folds: int) -> None:
    """Trains what is missing of all folds of the selected configs, and writes what they say."""
    root = Path("runs") / name if name else _root(f"folds_{num_folds}")
    configs = select(patterns)
    changes = {"study_run": "", "data.split": "stratified", "data.leaked": 0}
    changes |= {"data.num_folds": num_folds}

    def write(runs: Runs, failures: Failures) -> None:
        every = [run for group in runs.values() for run in group]
        workdirs = {c: [run.workdir for run in every if run.config == c] for c in configs}
        folds.write(root, workdirs, failures)
        print(f"the table is in {root / 'table.md'}")

    variants = {
        f"{config}/fold_{fold}": (config, changes | {"data.fold": fold})
        for config in configs
        for fold in range(num_folds)
    }
    _train(root, variants, write)


def select(patterns: Sequence[str] | None) -> list[str]:
    """The configs that match a pattern, by default the study's; UserError if one matches none."""
    if patterns is None:
        return list(STUDY)
    found = set()
    for pattern in patterns or [""]:
        matching = fnmatch.filter(CONFIGS, pattern)
        if not matching:
            raise UserError(f"--only={pattern} matches no run of {', '.join(CONFIGS)}.")
        found.update(matching)
    return [config for config in CONFIGS if config in found]


def ablation(sweep: Sweep) -> None:
    """Trains what is missing of the sweep's variants; writes their table and figure."""
    root = _root(f"ablation_{sweep.name}")

    def write(runs: Runs, failures: Failures) -> None:
        rows, histories = [], {}
        for variant, group in runs.items():
            workdirs = [run.workdir for run in group]
            row = table.row_of_runs(group[0].config, workdirs, failures)
            rows.append([variant, *(row[column] for column in COLUMNS)])
            finished = [history.read(w) for w in workdirs if run_folder.read_summary(w)]
            if finished:
                histories[variant] = finished
        header = ["variant", *COLUMNS]
        cells = [
            ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row]
            for row in rows
        ]
        files.prepare(root)
        files.write_csv(root / "table.csv", header, rows)
        files.write_text(root / "table.md", files.markdown(header, cells))
        files.write_figure(root / "ablation.png", plots.compare(histories, sweep.title))
        if sweep.extra is not None:
            sweep.extra(root)
        print(f"table and figure are in {root}")

    unnamed = {"study_run": ""}  # a variant is none of the study's runs
    variants = {name: (config, new | unnamed) for name, (config, new) in sweep.variants.items()}
    _train(root, variants, write)


def _root(name: str) -> Path:
    return Path("runs") / (f"{name}_{_EPOCHS.value}_epochs" if _EPOCHS.value else name)


def _train(root: Path, variants: Mapping[str, Variant], write: Write) -> None:
    """Trains this shard of the variants' runs; exits with status 1 if some failed.

    `write` writes the results of all runs, given the failures, also when a signal came.
    """
    data_dir = _DATA_DIR.value and str(Path(_DATA_DIR.value).expanduser().absolute())
    given = {"max_epochs": _EPOCHS.value, "data.dir": data_dir}
    common = {key: value for key, value in given.items() if value}
    runs = {
        name: [
            Run(config, {**changes, **common, "seed": seed}, root / name / f"seed_{seed}")
            for seed in range(_SEEDS.value)
        ]
        for name, (config, changes) in variants.items()
    }
    selected = runner.shard([run for group in runs.values() for run in group], _SHARD.value)
    failures: Failures = {}
    try:
        failures = runner.train_all(selected, _JOBS.value)
    finally:
        write(runs, failures)
    for workdir, reason in failures.items():
        print(f"failed: {workdir}: {reason}", file=sys.stderr)
    if failures:
        sys.exit(1)
