"""Classifies images with a run's best weights.

`python -m flowers_jax.predict --workdir=RUN IMAGE...`
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from flowers_jax import command, evaluate, results
from flowers_jax.checkpoints import best_weights
from flowers_jax.data import pipeline
from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def predict(workdir: Path, paths: Sequence[str]) -> list[dict[str, Any]]:
    """Class and probabilities of each image.

    Returns:
      For each path `{"path": ..., "class": ..., "probabilities": {class: probability}}`.

    Raises:
      UserError: `workdir` holds no weights, or an image cannot be used.
    """
    config = results.read_config(workdir)
    class_names = results.read_class_names(workdir)
    size = config["image_size"]
    model, variables = best_weights(workdir)
    unlabelled = np.zeros(len(paths), np.int32)
    files = ImageFolder(tuple(paths), unlabelled, class_names)
    split, _, _ = pipeline.load(files, files, size, config["data"]["resize"], "error")
    probabilities = evaluate.probabilities(
        model,
        variables,
        pipeline.batches(split, min(config["batch_size"], len(paths))),
        config["input_scaling"],
    )
    return [
        {
            "path": path,
            "class": class_names[row.argmax()],
            "probabilities": dict(zip(class_names, row.tolist(), strict=True)),
        }
        for path, row in zip(paths, probabilities, strict=True)
    ]


def main(arguments: Sequence[str]) -> None:
    """Prints the predictions."""
    paths = arguments[1:]
    if _WORKDIR.value is None or not paths:
        raise UserError("give a run and images: --workdir=runs/quickstart IMAGE...")
    predictions = predict(Path(_WORKDIR.value), paths)
    if _JSON.value:
        print(json.dumps(predictions, indent=2))
        return
    for prediction in predictions:
        ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {probability:.1%}" for name, probability in ranked)
        print(f"{prediction['path']}: {prediction['class']} ({shown})")


if __name__ == "__main__":
    command.run(main, messages=sys.stderr)  # stdout is for the predictions
