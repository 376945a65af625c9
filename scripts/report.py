"""Writes one self-contained page on all finished runs below a folder.

python scripts/report.py runs/study

The page is RUNS/report.html. The images of the mistakes are shown if they lie in RUNS or in the
folder that --data.dir or the environment variable FLOWERS_DIR names; of a run from another machine,
those that have the same class folder and name there.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import clone  # noqa: F401
from absl import flags

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.study import report

_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder; default: FLOWERS_DIR.")


def main(arguments: Sequence[str]) -> None:
    """Writes the page."""
    if len(arguments) != 2:
        raise UserError("give the folder of the runs: python scripts/report.py runs/study.")
    root, images = Path(arguments[1]), _DATA_DIR.value or os.environ.get("FLOWERS_DIR")
    num_runs = report.write(root, Path(images).expanduser() if images else None)
    print(f"{root / 'report.html'}: {num_runs} runs")


if __name__ == "__main__":
    command.run(main)
