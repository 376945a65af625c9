"""Why VGG16 did not learn: input scaling, initialisation and batch normalisation, 200 steps each.

python scripts/ablation_vgg16.py

The results go to runs/ablation_vgg16: layers.csv, table.md, gradient_norm.png and
activation_variance.png. Variants that layers.csv holds already are not run again.
"""

from collections.abc import Sequence
from pathlib import Path

import clone  # noqa: F401
from absl import flags

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.study import probe

_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", probe.IMAGE_SIZE, "Pixels; fewer make a shortened version."
)
_STEPS = flags.DEFINE_integer(
    "steps", probe.STEPS, "Steps of each variant; fewer make a shortened version.", probe.EVERY
)


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags say."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    data_dir = _DATA_DIR.value and str(Path(_DATA_DIR.value).expanduser())
    probe.run(data_dir, _IMAGE_SIZE.value, _STEPS.value)


if __name__ == "__main__":
    command.run(main)
