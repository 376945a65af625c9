"""What choosing the best epoch on the reported images is worth: improvement 4 on random halves.

python scripts/epoch_choice.py --data.dir=DIR --out=/tmp/epoch_choice

The run keeps its probabilities of the 863 validation images after each epoch in --out and trains
all --epochs, without stopping early. The same command goes on after an interruption, at the start
of the epoch that was interrupted. halves.csv has both halves of every random division.
"""

from collections.abc import Sequence
from pathlib import Path

import clone  # noqa: F401
from absl import flags

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.study import epoch_choice

_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_SOURCE = flags.DEFINE_string("data.source", "auto", "As --config.data.source.")
_OUT = flags.DEFINE_string("out", "runs/epoch_choice", "Where the predictions go.")
_EPOCHS = flags.DEFINE_integer("epochs", 60, "Epochs to train; fewer are a shortened version.", 2)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "Pixels; fewer are a shortened version.", 1)
_HALVES = flags.DEFINE_integer("halves", 200, "Random divisions into halves.", 1)


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags say."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    changes = {"max_epochs": _EPOCHS.value, "image_size": _IMAGE_SIZE.value, "study_run": ""}
    changes |= {"data.source": _SOURCE.value}
    if _DATA_DIR.value:
        changes["data.dir"] = str(Path(_DATA_DIR.value).expanduser())
    print(epoch_choice.run(Path(_OUT.value).expanduser(), changes, _HALVES.value))


if __name__ == "__main__":
    command.run(main)
