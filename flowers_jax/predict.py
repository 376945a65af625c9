"""Classifies images with the weights of a run.

`python -m flowers_jax.predict --workdir=RUN IMAGE|FOLDER|GLOB...`
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax import calibration, run
from flowers_jax.data import decode, folder
from flowers_jax.process import command
from flowers_jax.process.errors import ResultsIncomplete, UserError
from flowers_jax.runs import evaluate, files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")
_THRESHOLD = command.define_threshold(0.0)
_TTA = flags.DEFINE_bool("tta", False, "Average over the flips that the training used.")
_OUTPUT = flags.DEFINE_string("output", None, "Write a table (CSV) to this file instead.")


UNSURE = "unsure"  # instead of a class


def main(arguments: Sequence[str]) -> None:
    """Prints class and probabilities of each image, or writes them to a file."""
    if _WORKDIR.value is None or not arguments[1:]:
        raise UserError("give a run and images: --workdir=runs/quickstart IMAGE|FOLDER...")
    output = Path(_OUTPUT.value).expanduser() if _OUTPUT.value else None
    if output is not None:  # before hours of work
        files.prepare_file(output)
    paths = list(dict.fromkeys(path for name in arguments[1:] for path in folder.image_paths(name)))
    trained = run.load(_WORKDIR.value, _TTA.value)
    probabilities, bad = trained.predict_files(paths)
    if trained.temperature is None:
        why = "it is not finished, or older than temperatures"
        print(f"{trained.workdir} has no temperature ({why}): not calibrated", file=sys.stderr)
    else:
        probabilities = calibration.calibrate(probabilities, trained.temperature)
    names = trained.class_names
    good = [
        (path, names[row.index(max(row))] if max(row) >= _THRESHOLD.value else UNSURE, row)
        for path, row in zip(paths, probabilities.tolist(), strict=True)
        if not math.isnan(row[0])
    ]
    if output is not None:
        header = ["path", "predicted", *evaluate.class_columns(names)]
        files.write_csv(output, header, ([p, n, *r] for p, n, r in good))
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
