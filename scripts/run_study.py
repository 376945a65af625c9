"""Runs the study, or a part of it, and puts its table beside the original's.

python scripts/run_study.py --only='improvement_*,alexnet_sgd' --seeds=3

Each run goes to runs/<study>/<config>/seed_<s>; the same command again skips what is finished and
continues what was interrupted. The table is in runs/<study>/table.md and table.csv, also when the
command is interrupted. Beside the study's runs --only knows those that the study left out, Adam and
Adagrad with GoogLeNet.
"""

import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import runner
from absl import flags

from flowers_jax import command, results, study
from flowers_jax.errors import UserError

_ONLY = flags.DEFINE_list(
    "only", None, "Configs to run, as patterns: improvement_*,alexnet_sgd; default: the study's."
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds 0, 1, ... of each config.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "At most so many epochs: a short version.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_STUDY = flags.DEFINE_string(
    "study", None, "Name of the folder in runs/; default: study, or study_<N>_epochs."
)
UNTRIED = ("googlenet_adam", "googlenet_adagrad")  # by the study
# Headings of the columns that table.md shows, and their format.
HEADINGS = {
    "config": ("config", ""),
    "study_max_val_accuracy": ("study's table", ".2f"),
    "study_best_epoch_val_accuracy": ("best epoch of its log", ".2f"),
    "seeds": ("seeds", ""),
    "max_val_accuracy": ("ours", ".2f"),
    "max_val_accuracy_sd": ("sd", ".2f"),
    "difference": ("difference", "+.2f"),
    "restored_val_accuracy": ("restored epoch", ".2f"),
    "interval_low": ("95 % from", ".1f"),
    "interval_high": ("to", ".1f"),
    "study_max_train_accuracy": ("study's training", ".2f"),
    "max_train_accuracy": ("our training", ".2f"),
    "epochs": ("epochs", ".0f"),
    "best_epoch": ("best epoch", ".0f"),
    "minutes": ("minutes", ".1f"),
    "images_per_second": ("images/s", ".0f"),
    "state": ("run", ""),
}


def main(arguments: Sequence[str]) -> None:
    """Trains what is missing and writes the table."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}; choose configs with --only=...")
    names = [run["id"] for run in results.reference()["runs"]]
    known = (*names, *UNTRIED)
    patterns = names if _ONLY.value is None else _ONLY.value
    chosen = [name for name in known if any(fnmatchcase(name, p) for p in patterns)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UserError(f"--only={pattern} matches no run of {', '.join(known)}.")
    changes: dict[str, Any] = {}
    if _EPOCHS.value:
        changes["max_epochs"] = _EPOCHS.value
    if _DATA_DIR.value:
        changes["data.dir"] = str(Path(_DATA_DIR.value).absolute())
    default = f"study_{_EPOCHS.value}_epochs" if _EPOCHS.value else "study"
    folder = Path("runs") / (_STUDY.value or default)
    runs = {
        name: [
            runner.Run(name, {**changes, "seed": seed}, folder / name / f"seed_{seed}")
            for seed in range(_SEEDS.value)
        ]
        for name in chosen
    }
    failures: dict[Path, str] = {}
    try:
        failures = runner.train_all(run for group in runs.values() for run in group)
    finally:
        rows = []
        for name in known:
            found = (folder / name).glob("seed_*")
            there = {path for path in found if not results.is_set_aside(path)}
            workdirs = there | {run.workdir for run in runs.get(name, [])}
            if workdirs or name in names:
                rows.append(runner.row(name, workdirs, failures))
        write_table(folder, rows)
        print(f"the table is in {folder / 'table.md'}")
    if failures:
        for workdir, reason in failures.items():
            print(f"failed: {workdir}: {reason}", file=sys.stderr)
        sys.exit(1)


def write_table(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes `table.csv` with all columns and `table.md` with those that one reads."""
    results.prepare(folder)
    results.write_csv(
        folder / "table.csv", study.COLUMNS, ([row[c] for c in study.COLUMNS] for row in rows)
    )
    cells = [
        ["" if row[c] is None else format(row[c], spec) for c, (_, spec) in HEADINGS.items()]
        for row in rows
    ]
    header = [heading for heading, _ in HEADINGS.values()]
    results.write_text(folder / "table.md", runner.markdown(header, cells))


if __name__ == "__main__":
    command.run(main)
