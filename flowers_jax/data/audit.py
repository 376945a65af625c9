"""Audits an image folder: `python -m flowers_jax.data.audit DIR`.

It counts files, sizes and modes, and lists files that cannot be read and images that are there
twice. The exit status is 1 if the study's split leaks.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.study.audit import audit

_OUT = flags.DEFINE_string("out", "audit", "Folder for files.csv, duplicates.csv and the sheet.")


def main(arguments: Sequence[str]) -> None:
    """Audits the folder that the only argument names."""
    if len(arguments) != 2:
        raise UserError("give one image folder: python -m flowers_jax.data.audit DIR.")
    root, out = (Path(name).expanduser() for name in (arguments[1], _OUT.value))
    sys.exit(1 if audit(root, out) else 0)


if __name__ == "__main__":
    command.run(main)
