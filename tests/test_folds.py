"""Cross-validation: the table of the folds, and the command."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowers_jax.study import folds

SCRIPT = Path("scripts/run_study.py").absolute()


def fold(workdir, matrix, **summary):
    workdir.mkdir(parents=True)
    rows = "".join(f"{name},{a},{b}\n" for name, (a, b) in zip("xy", matrix, strict=True))
    (workdir / "confusion_matrix.csv").write_text("true class,x,y\n" + rows)
    (workdir / "classes.json").write_text('["x", "y"]')
    share = np.trace(matrix) / np.sum(matrix)
    (workdir / "summary.json").write_text(json.dumps({"reported_val_accuracy": share, **summary}))
    return workdir


def test_the_folds_are_pooled(tmp_path):
    first = fold(tmp_path / "c" / "fold_0", [[4, 1], [1, 4]], test={"accuracy": 0.5})
    second = fold(tmp_path / "c" / "fold_1", [[5, 0], [0, 5]], test={"accuracy": 0.7})
    missing = tmp_path / "c" / "fold_2"
    [row] = folds.write(tmp_path, {"c": [first, second, missing]}, [missing])
    named = dict(zip(folds.HEADER, row, strict=True))
    assert (named["accuracy"], named["sd"]) == ("90.00", "14.14")
    assert (named["lowest"], named["highest"], named["pooled"]) == ("80.00", "100.00", "90.00")
    assert named["test"] == "60.00"
    assert named["run"] == "2 of 3 runs, failed"
    text = (tmp_path / "c" / "confusion_matrix.csv").read_text()
    assert text.splitlines()[1:] == ["x,9,1", "y,1,9"]
    [empty] = folds.write(tmp_path, {"c": [missing]}, [])
    assert empty[-1] == "0 of 1 runs"
    assert len(empty) == len(folds.HEADER)


@pytest.mark.slow
def test_every_image_is_predicted_in_one_fold(image_folder, tmp_path):
    flags = [f"--data.dir={image_folder}", "--only=pilot_adadelta", "--folds=2", "--epochs=1"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *flags],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    root = tmp_path / "runs" / "folds_2_1_epochs"
    [row] = csv.DictReader((root / "table.csv").open())
    assert (row["runs"], row["run"]) == ("2", "in full")
    config = root / "pilot_adadelta"
    predicted = [
        line["path"]
        for path in config.glob("fold_*/seed_0/predictions.csv")
        for line in csv.DictReader(path.open())
    ]
    assert sorted(predicted) == sorted(map(str, image_folder.glob("*/*.png")))
    assert (config / "confusion_matrix.png").exists()
