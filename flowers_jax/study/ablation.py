"""What the ablations share: variants of a config, trained, and their table and figure.

Every script takes --data.dir, --seeds and --epochs, leaves its runs in runs/<script>/<variant>/
seed_<s> (with --epochs, in runs/<script>_<N>_epochs) and above them table.md, table.csv and
ablation.png, and goes on where it stopped.
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import runner
from absl import flags

from flowers_jax import command, plots, results
from flowers_jax.errors import UserError

_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds 0, 1, ... of each variant.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer(
    "epochs", None, "At most so many epochs: a short version.", lower_bound=1
)
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")

# A variant: its config and the changed settings.
Variants = dict[str, tuple[str, dict[str, Any]]]
Finish = Callable[[Path], None]
HEADER = [
    "variant",
    "seeds",
    "max_val_accuracy",
    "restored_val_accuracy",
    "interval_low",
    "interval_high",
    "max_train_accuracy",
    "epochs",
    "best_epoch",
    "minutes",
    "state",
]


def main(title: str, variants: Variants, finish: Finish | None = None) -> None:
    """The whole of an ablation script.

    Args:
      title: of the figure.
      variants: what is compared.
      finish: called with the folder after the table, for what only this ablation shows.
    """
    command.run(lambda arguments: _run(arguments, title, variants, finish))


def _run(arguments: Sequence[str], title: str, variants: Variants, finish: Finish | None) -> None:
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    name = Path(arguments[0]).stem
    folder = Path("runs") / (f"{name}_{_EPOCHS.value}_epochs" if _EPOCHS.value else name)
    results.prepare(folder)
    common: dict[str, Any] = {"study_run": ""}  # a variant is none of the study's runs
    if _EPOCHS.value:
        common["max_epochs"] = _EPOCHS.value
    if _DATA_DIR.value:
        common["data.dir"] = str(Path(_DATA_DIR.value).absolute())
    runs = {
        variant: [
            runner.Run(config, {**changes, **common, "seed": s}, folder / variant / f"seed_{s}")
            for s in range(_SEEDS.value)
        ]
        for variant, (config, changes) in variants.items()
    }
    failures: dict[Path, str] = {}
    try:
        failures = runner.train_all(run for group in runs.values() for run in group)
    finally:  # also when it is interrupted
        workdirs = {variant: [run.workdir for run in group] for variant, group in runs.items()}
        write(folder, title, variants, workdirs, failures)
        if finish is not None:
            finish(folder)
        print(f"table and figure are in {folder}")
    if failures:
        for workdir, reason in failures.items():
            print(f"failed: {workdir}: {reason}", file=sys.stderr)
        sys.exit(1)


def write(
    folder: Path,
    title: str,
    variants: Variants,
    workdirs: dict[str, list[Path]],
    failures: dict[Path, str],
) -> None:
    """Writes the table of all variants and the figure of those that have finished runs."""
    rows, histories = [], {}
    for name, group in workdirs.items():
        row = runner.row(variants[name][0], group, failures)
        rows.append([name, *(row[column] for column in HEADER[1:])])
        finished = [workdir for workdir in group if results.read_summary(workdir)]
        if finished:
            histories[name] = [results.read_history(workdir) for workdir in finished]
    results.write_csv(folder / "table.csv", HEADER, rows)
    cells = [
        ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row]
        for row in rows
    ]
    results.write_text(folder / "table.md", runner.markdown(HEADER, cells))
    results.write_figure(folder / "ablation.png", plots.compare(histories, title))


def best(workdirs: Sequence[Path], column: str) -> float:
    """The largest value of a column of the history, mean over the runs."""
    return statistics.mean(
        max(row[column] for row in results.read_history(workdir)) for workdir in workdirs
    )
