"""The study's runs, repeated, and their table beside the original's."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from flowers_jax import reference
from flowers_jax.process.errors import UserError
from flowers_jax.runs import folder as run_folder
from flowers_jax.study import options, table
from flowers_jax.study.runner import Failures

RUNS = tuple(run["id"] for run in reference.study()["runs"])
UNTRIED = ("googlenet_adam", "googlenet_adagrad")  # by the study


def select(patterns: Sequence[str] | None) -> list[str]:
    """The configs that match any of the patterns; without patterns those of the study.

    Raises:
      UserError: a pattern matches none.
    """
    if patterns is None:
        return list(RUNS)
    known = (*RUNS, *UNTRIED)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UserError(f"--only={pattern} matches no run of {', '.join(known)}.")
    return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]


def run(patterns: Sequence[str] | None, study: str | None) -> None:
    """Trains what is missing of the selected configs in `runs/<study>` and writes the table."""
    root = Path("runs") / study if study else options.root("study")
    runs = {name: options.runs(name, {}, root / name) for name in select(patterns)}

    def write(failures: Failures) -> None:
        rows = []
        for name in (*RUNS, *UNTRIED):
            found = {p for p in (root / name).glob("seed_*") if not run_folder.is_set_aside(p)}
            workdirs = found | {run.workdir for run in runs.get(name, [])}
            if workdirs or name in RUNS:
                rows.append(table.row_of_runs(name, workdirs, failures))
        table.write(root, rows)
        print(f"the table is in {root / 'table.md'}")

    options.train(runs.values(), write)
