"""Shows where in images the network of a run sees a class (Grad-CAM).

`python -m flowers_jax.explain --workdir=RUN IMAGE...`
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax import run
from flowers_jax.models.layers import FEATURES
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_CLASS = flags.DEFINE_string("class", None, "Class to look for; default: the predicted one.")
_LAYER = flags.DEFINE_string("layer", FEATURES, "Layer to look at, by its name in model.txt.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the pictures; default: RUN/grad_cam.")


def main(arguments: Sequence[str]) -> None:
    """Writes a picture of each image, with the heat over it."""
    paths = arguments[1:]
    if _WORKDIR.value is None or not paths:
        raise UserError("give a run and images: --workdir=runs/quickstart IMAGE...")
    explanations = run.load(_WORKDIR.value).explain(paths, _CLASS.value, _LAYER.value)
    output = Path(_OUTPUT.value or Path(_WORKDIR.value) / "grad_cam").expanduser()
    files.prepare(output)
    taken: set[str] = set()
    for found in explanations:
        name = stem = f"{Path(found.path).stem}_{found.class_name}"
        while name in taken:  # images of the same name in several folders
            name = f"{stem}_{len(taken)}"
        taken.add(name)
        files.write_image(output / f"{name}.png", found.overlay())
        print(f"{found.path}: {found.class_name}, {output / name}.png")


if __name__ == "__main__":
    command.run(main)
