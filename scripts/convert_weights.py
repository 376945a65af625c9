"""Converts weights between Keras and flowers_jax.

From Keras:  python scripts/convert_weights.py --model=vgg16 modelo.h5 weights.msgpack
To Keras:    python scripts/convert_weights.py runs/improvement_4_batchnorm modelo.keras
             python scripts/convert_weights.py --model=vgg16 weights.msgpack modelo.weights.h5

A `.msgpack` file holds the variables for `flax.serialization.msgpack_restore`; training starts from
either kind with `--config.init_from=FILE`.
"""

from collections.abc import Sequence
from pathlib import Path

import clone  # noqa: F401
import flax
import jax
from absl import flags

from flowers_jax import keras_models, keras_weights, models, run, transfer
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files

_MODEL = flags.DEFINE_string(
    "model", None, f"Architecture of a weights file: {', '.join(models.MODELS)}."
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 150, "Height and width of the Keras model that is made of a .msgpack file."
)


def main(arguments: Sequence[str]) -> None:
    """Converts the first file into the second."""
    if len(arguments) != 3:
        raise UserError("give a source and a target: convert_weights.py SOURCE TARGET.")
    source, target = map(Path, arguments[1:])
    if target.exists():
        raise UserError(f"{target} exists already; remove it or choose another name.")
    if not target.parent.is_dir():
        raise UserError(f"there is no folder {target.parent} for {target.name}.")
    if source.is_dir():
        trained = run.load(source)
        name, size = trained.config.model, trained.config.image_size
        variables = trained.variables
    elif _MODEL.value is None:
        raise UserError(f"which architecture is {source}? Give --model={'|'.join(models.MODELS)}.")
    else:
        name, size = _MODEL.value, _IMAGE_SIZE.value
        models.create_model(name)  # or there is no such model
        variables = transfer.load(source, name)
    if target.suffix == ".msgpack":
        files.write_bytes(target, flax.serialization.msgpack_serialize(jax.device_get(variables)))
    elif target.suffix in (".keras", ".h5"):
        num_classes = transfer.num_classes(variables, name)
        model = keras_models.create_keras_model(name, size, num_classes)
        keras_weights.to_keras(variables, model)
        save = model.save_weights if target.name.endswith(".weights.h5") else model.save
        save(target)
    else:
        raise UserError(f"{target} must end in .msgpack, .keras, .h5 or .weights.h5.")
    print(f"{target}: weights of {name}")


if __name__ == "__main__":
    command.run(main)
