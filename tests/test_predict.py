"""The command that classifies images."""

import csv
import json

import commands
import numpy as np
import pytest
from ml_collections import ConfigDict

import flowers_jax
from flowers_jax import calibration
from flowers_jax.data import decode
from flowers_jax.process.errors import UserError


def test_bad_files_are_named_and_the_good_ones_predicted(tiny_config, image_folder, tmp_path):
    tiny_config.max_epochs = 1
    trained = flowers_jax.fit(tiny_config, tmp_path / "run")
    (image_folder / "red" / "broken.png").write_bytes(b"no image")
    arguments = [f"--workdir={tmp_path / 'run'}", str(image_folder / "red"), "nowhere.png"]
    output = tmp_path / "table.csv"
    for extra in (["--json"], [f"--output={output}"]):
        done = commands.run("predict", *arguments, *extra)
        assert done.returncode == 1
        assert "2 of 22 images cannot be used: " in done.stderr
        assert (
            "broken.png' is not an image; 'nowhere.png' cannot be read: No such file or directory."
            in done.stderr
        )
        assert "Traceback" not in done.stderr
        if extra == ["--json"]:
            entries = json.loads(done.stdout)
    refused = commands.run("predict", *arguments, f"--output={tmp_path}")
    assert (refused.returncode, f"{tmp_path} is a folder" in refused.stderr) == (2, True)
    paths = sorted(str(path) for path in (image_folder / "red").glob("[0-9]*.png"))
    expected = calibration.calibrate(trained.predict(paths), trained.temperature)
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


@pytest.mark.parametrize("threshold", ["nan", "-0.1", "2", "half"])
def test_a_threshold_is_a_probability(threshold):
    refused = commands.run("predict", "--workdir=run", f"--threshold={threshold}", "image.png")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: flag --threshold={threshold}: ")
    assert refused.stderr.count("\n") == 1


def test_where_no_class_is_probable_enough_it_is_unsure(tiny_config, image_folder, tmp_path):
    tiny_config.max_epochs = 1
    tiny_config.data.augment = ConfigDict({"vertical_flip": True})
    trained = flowers_jax.fit(tiny_config, tmp_path / "run")
    paths = sorted(str(path) for path in image_folder.glob("*/*.png"))
    chances = calibration.calibrate(trained.predict(paths), 0.5).max(axis=1)
    threshold = float(np.median(chances))

    def predict(temperature, *flags):
        summary = json.loads((trained.workdir / "summary.json").read_text())
        summary.pop("temperature", None)
        summary |= {} if temperature is None else {"temperature": temperature}
        (trained.workdir / "summary.json").write_text(json.dumps(summary))
        done = commands.run("predict", f"--workdir={trained.workdir}", *flags, *paths)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    output, errors = predict(0.5, f"--threshold={threshold}")
    found = [line.split(": ")[1].split(" (")[0] for line in output.splitlines()]
    assert [name == "unsure" for name in found] == (chances < threshold).tolist()
    assert found.count("unsure") == 30
    assert "not calibrated" not in errors

    # Runs of earlier versions have no temperature.
    output, errors = predict(None, "--tta", "--json")
    assert "has no temperature (it is not finished, or older than temperatures)" in errors
    entries = json.loads(output)
    averaged = flowers_jax.run.load(trained.workdir, tta=True).predict(paths)
    ours = [list(entry["probabilities"].values()) for entry in entries]
    np.testing.assert_allclose(ours, averaged, atol=1e-6)
    flipped = [decode.read_rgb(path)[::-1] for path in paths]
    expected = (trained.predict(paths) + trained.predict(np.array(flipped))) / 2
    np.testing.assert_allclose(averaged, expected, atol=5e-3)  # flipped before it is resized


def test_without_flips_in_training_there_is_nothing_to_average(tiny_config, tmp_path):
    tiny_config.max_epochs = 1
    flowers_jax.fit(tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match="was trained without flips"):
        flowers_jax.run.load(tmp_path / "run", tta=True)
