"""Writes a run as one file that other programs can use: pixels in, calibrated probabilities out.

python scripts/export.py runs/mine --format=stablehlo|keras|onnx|litert
"""

import os
from collections.abc import Sequence
from pathlib import Path

import clone  # noqa: F401
from absl import flags

from flowers_jax import export, run
from flowers_jax.process import command
from flowers_jax.process.errors import UserError

_FORMAT = flags.DEFINE_enum("format", None, list(export.SUFFIXES), "What to write.")
_OUTPUT = flags.DEFINE_string("output", None, "The file; default: RUN/model.<suffix>.")


def main(arguments: Sequence[str]) -> None:
    """Writes the file."""
    if len(arguments) != 2 or _FORMAT.value is None:
        kinds = "|".join(export.SUFFIXES)
        raise UserError(f"give a run and a format: export.py runs/mine --format={kinds}.")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the one that Keras exports all formats from
    workdir = Path(arguments[1])
    default = workdir / f"model{export.SUFFIXES[_FORMAT.value]}"
    path = Path(_OUTPUT.value).expanduser() if _OUTPUT.value else default
    if path.exists():
        raise UserError(f"{path} exists already; remove it or choose another --output.")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}.")
    trained = run.load(workdir)
    export.write(trained, _FORMAT.value, path)
    if trained.temperature is None:
        print("the run has no temperature: its probabilities are not calibrated")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    command.run(main)
