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
    predictions = zip(paths, trained.predict(paths).tolist(), strict=True)
    entries = []
    for path, row in predictions:
        probabilities = dict(zip(trained.class_names, row, strict=True))
        name = max(probabilities, key=probabilities.__getitem__)
        entries.append({"path": path, "class": name, "probabilities": probabilities})
        if not _JSON.value:
            ranked = sorted(probabilities.items(), key=lambda item: -item[1])
            print(f"{path}: {name} ({', '.join(f'{k} {p:.1%}' for k, p in ranked)})")
    if _JSON.value:
        print(json.dumps(entries, indent=2))


if __name__ == "__main__":
    command.run(main, messages=sys.stderr)  # stdout is for the predictions
