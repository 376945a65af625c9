"""Compares runs: draws their histories in one picture and prints a table.

`python -m flowers_jax.compare RUN RUN...`
"""

import math
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax import settings
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files, history, plots, run_folder

_OUTPUT = flags.DEFINE_string("output", "comparison.png", "The picture.")
HEADER = (
    *("run", "model", "optimizer", "seed", "epochs", "best epoch"),
    *("its val_accuracy", "least val_loss", "minutes", "state"),
)


def main(arguments: Sequence[str]) -> None:
    """Writes the picture and prints the table."""
    workdirs = list(dict.fromkeys(Path(name).expanduser() for name in arguments[1:]))
    if not workdirs:
        raise UserError("give run folders: runs/quickstart runs/mine.")
    output = Path(_OUTPUT.value).expanduser()
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output} does not end in .png, which the picture is.")
    files.prepare_file(output)
    histories = {workdir: history.read(workdir) for workdir in workdirs}
    print(files.markdown(HEADER, [row(workdir, rows) for workdir, rows in histories.items()]))
    figure = plots.compare({str(workdir): [rows] for workdir, rows in histories.items()}, "")
    files.write_figure(output, figure)
    print(f"picture in {output}")


def row(workdir: Path, rows: history.History) -> list[str]:
    """The table's row of a run; its best epoch is that of the best validation accuracy."""
    config = settings.from_json(run_folder.read_config(workdir))
    if not rows:
        raise UserError(f"{workdir} has no epoch yet; leave it out.")
    best = max(rows, key=lambda row: (not math.isnan(row["val_accuracy"]), row["val_accuracy"]))
    return [
        str(workdir),
        config.model,
        f"{config.optimizer.name} {config.optimizer.learning_rate:g}",
        str(config.seed),
        str(len(rows)),
        str(best["epoch"]),
        f"{best['val_accuracy']:.2%}",
        f"{min(row['val_loss'] for row in rows):.4f}",
        f"{sum(row['seconds'] for row in rows) / 60:.1f}",
        "unfinished" if run_folder.read_summary(workdir) is None else "finished",
    ]


if __name__ == "__main__":
    command.run(main)
