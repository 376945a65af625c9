"""The command that classifies images."""

import csv
import json
import os
import subprocess
import sys

import pytest

import flowers_jax


def test_bad_files_are_named_and_the_good_ones_predicted(tiny_config, image_folder, tmp_path):
    tiny_config.max_epochs = 1
    trained = flowers_jax.fit(tiny_config, tmp_path / "run")
    (image_folder / "red" / "broken.png").write_bytes(b"no image")
    arguments = [f"--workdir={tmp_path / 'run'}", str(image_folder / "red"), "nowhere.png"]
    command = [sys.executable, "-m", "flowers_jax.predict", *arguments]
    output = tmp_path / "table.csv"
    for extra in (["--json"], [f"--output={output}"]):
        environment = {k: v for k, v in os.environ.items() if k != "FLOWERS_DIR"}
        done = subprocess.run([*command, *extra], capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        assert "2 of 22 images cannot be used: " in done.stderr
        assert (
            "broken.png' is not an image; 'nowhere.png' cannot be read: No such file or directory."
            in done.stderr
        )
        assert "Traceback" not in done.stderr
        if extra == ["--json"]:
            entries = json.loads(done.stdout)
    paths = sorted(str(path) for path in (image_folder / "red").glob("[0-9]*.png"))
    expected = trained.predict(paths)
    assert [entry["path"] for entry in entries] == paths
    rows = list(csv.DictReader(output.open()))
    assert [row["path"] for row in rows] == paths
    for entry, row, chances in zip(entries, rows, expected, strict=True):
        assert list(entry["probabilities"]) == ["blue", "green", "red"]
        assert list(entry["probabilities"].values()) == pytest.approx(chances.tolist(), rel=1e-5)
        assert [float(row[name]) for name in ("blue", "green", "red")] == pytest.approx(
            chances.tolist(), rel=1e-5
        )
        assert entry["class"] == row["predicted"] == ("blue", "green", "red")[chances.argmax()]
