"""Classifies images with the weights of a run.

`python -m flowers_jax.predict --workdir=RUN IMAGE...`
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from flowers_jax import run
from flowers_jax.ops import backend
from flowers_jax.process import command
from flowers_jax.process.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(arguments: Sequence[str]) -> None:
    """Prints class and probabilities of each image."""
    paths = arguments[1:]
    if _WORKDIR.value is None or not paths:
        raise UserError("give a run and images: --workdir=runs/quickstart IMAGE...")
    backend.use_compilation_cache()
    trained = run.load(_WORKDIR.value)
    predictions = [
        dict(zip(trained.class_names, row, strict=True)) for row in trained.predict(paths).tolist()
    ]
    if _JSON.value:
        entries = [
            {"path": path, "class": max(p, key=p.__getitem__), "probabilities": p}
            for path, p in zip(paths, predictions, strict=True)
        ]
        print(json.dumps(entries, indent=2))
        return
    for path, prediction in zip(paths, predictions, strict=True):
        ranked = sorted(prediction.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name} {probability:.1%}" for name, probability in ranked)
        print(f"{path}: {ranked[0][0]} ({shown})")


if __name__ == "__main__":
    command.run(main, messages=sys.stderr)  # stdout is for the predictions
