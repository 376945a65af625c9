"""Trains a sweep and writes its table and figure.

The runs go to runs/ablation_<name>/<variant>/seed_<s> (with --epochs, to
runs/ablation_<name>_<N>_epochs), and above them table.md, table.csv and ablation.png.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from flowers_jax.runs import files, folder, history, plots
from flowers_jax.study import options, table
from flowers_jax.study.runner import Failures, Run
from flowers_jax.study.sweeps import Sweep

# Columns of `table.row`.
COLUMNS = (
    "seeds max_val_accuracy restored_val_accuracy interval_low interval_high max_train_accuracy "
    "epochs best_epoch minutes state"
).split()


def main(sweep: Sweep) -> NoReturn:
    """The whole of an ablation's script."""
    options.run(lambda: _run(sweep))


def _run(sweep: Sweep) -> None:
    root = options.root(f"ablation_{sweep.name}")
    runs = {
        # A variant is none of the study's runs.
        name: options.runs(config, {**changes, "study_run": ""}, root / name)
        for name, (config, changes) in sweep.variants.items()
    }

    def write(failures: Failures) -> None:
        write_results(root, sweep.title, runs, failures)
        if sweep.extra is not None:
            sweep.extra(root)
        print(f"table and figure are in {root}")

    options.train(runs.values(), write)


def write_results(
    root: Path, title: str, runs: Mapping[str, Sequence[Run]], failures: Failures
) -> None:
    """Writes the table of all variants and the figure of those that have finished runs."""
    rows, histories = [], {}
    for variant, group in runs.items():
        workdirs = [run.workdir for run in group]
        row = table.row_of_runs(group[0].config, workdirs, failures)
        rows.append([variant, *(row[column] for column in COLUMNS)])
        finished = [workdir for workdir in workdirs if folder.read_summary(workdir)]
        if finished:
            histories[variant] = [history.read(workdir) for workdir in finished]
    header = ["variant", *COLUMNS]
    files.prepare(root)
    files.write_csv(root / "table.csv", header, rows)
    cells = [
        ["" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in row]
        for row in rows
    ]
    files.write_text(root / "table.md", files.markdown(header, cells))
    files.write_figure(root / "ablation.png", plots.compare(histories, title))
