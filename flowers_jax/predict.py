"""Classifies images with the weights of a run.

`python -m flowers_jax.predict --workdir=RUN IMAGE|FOLDER|GLOB...`
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax import run
from flowers_jax.data import decode, folder
from flowers_jax.process import command
from flowers_jax.process.errors import ResultsIncomplete, UserError
from flowers_jax.runs import evaluate, files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")
_OUTPUT = flags.DEFINE_string("output", None, "Write a table (CSV) to this file instead.")


def main(arguments: Sequence[str]) -> None:
    """Prints class and probabilities of each image, or writes them to a file."""
    if _WORKDIR.value is None or not arguments[1:]:
        raise UserError("give a run and images: --workdir=runs/quickstart IMAGE|FOLDER...")
    paths = list(dict.fromkeys(path for name in arguments[1:] for path in folder.image_paths(name)))
    trained = run.load(_WORKDIR.value)
    probabilities, bad = trained.predict_files(paths)
    names = trained.class_names
    good = [
        (path, names[max(range(len(row)), key=row.__getitem__)], row)
        for path, row in zip(paths, probabilities.tolist(), strict=True)
        if not math.isnan(row[0])
    ]
    if _OUTPUT.value:
        header = ["path", "predicted", *evaluate.class_columns(names)]
        files.write_csv(Path(_OUTPUT.value).expanduser(), header, ([p, n, *r] for p, n, r in good))
    elif _JSON.value:
        entries = [
            {"path": path, "class": name, "probabilities": dict(zip(names, row, strict=True))}
            for path, name, row in good
        ]
        print(json.dumps(entries, indent=2))
    else:
        for path, name, row in good:
            ranked = sorted(zip(names, row, strict=True), key=lambda item: -item[1])
            print(f"{path}: {name} ({', '.join(f'{k} {p:.1%}' for k, p in ranked)})")
    if bad:
        raise ResultsIncomplete(f"{decode.describe_bad(bad, len(paths))}.")


if __name__ == "__main__":
    command.run(main, messages=sys.stderr)  # stdout is for the predictions
