"""The commands that evaluate a run on another folder, and compare runs."""

import csv
import json
import shutil

import commands
import pytest
from PIL import Image

import flowers_jax
from flowers_jax.runs import files, history


@pytest.fixture
def trained(tiny_config, tmp_path):
    tiny_config.max_epochs = 2
    return flowers_jax.fit(tiny_config, tmp_path / "run")


def test_the_commands_evaluate_and_compare(trained, image_folder, tmp_path):
    shutil.copytree(image_folder / "red", tmp_path / "new" / "red")
    shutil.copytree(image_folder / "blue", tmp_path / "new" / "blue")
    expected = trained.evaluate(tmp_path / "new")
    done = commands.run("evaluate", f"--workdir={trained.workdir}", tmp_path / "new")
    assert (done.returncode, done.stderr) == (0, "")
    assert "has no images of green" in done.stdout
    assert expected.report in done.stdout
    target = trained.workdir / "evaluations" / "new"
    stored = json.loads((target / "metrics.json").read_text())
    assert stored["folder"] == str(tmp_path / "new")
    assert stored["num_images"] == 40
    assert stored["accuracy"] == pytest.approx(expected.metrics["accuracy"])
    assert stored["loss"] == pytest.approx(expected.metrics["loss"], rel=1e-5)
    rows = list(csv.reader((target / "confusion_matrix.csv").open()))
    assert rows[0] == ["true class", "blue", "green", "red"]
    assert [list(map(int, row[1:])) for row in rows[1:]] == expected.confusion_matrix.tolist()
    assert len(list(csv.DictReader((target / "predictions.csv").open()))) == 40
    # Another folder of the same name does not replace these results.
    shutil.copytree(tmp_path / "new", tmp_path / "other" / "new")
    refused = commands.run("evaluate", f"--workdir={trained.workdir}", tmp_path / "other" / "new")
    assert refused.returncode == 2
    assert "give another --name" in refused.stderr

    picture = tmp_path / "picture.png"
    done = commands.run("compare", f"--output={picture}", trained.workdir, f"{trained.workdir}/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"| {trained.workdir} | pilot_cnn | adam 0.001 | 0 | 2 |") == 1
    assert Image.open(picture).size[0] > 500
    for line, message in (
        (("compare", tmp_path), "is not a run folder"),
        (("compare", "--output=a.pdf", trained.workdir), "--output=a.pdf does not end in .png"),
        (("evaluate", "--workdir=run", "--name=../a", tmp_path), "--name=../a is a path"),
    ):
        refused = commands.run(*line)
        assert (refused.returncode, message in refused.stderr) == (2, True)


def test_the_table_tells_the_best_epoch_of_a_run_that_is_not_finished(tmp_path):
    (tmp_path / "run").mkdir()
    files.write_json(tmp_path / "run" / "config.json", {"model": "alexnet", "seed": 7})
    rows = [
        {"epoch": 1, "val_accuracy": 0.5, "val_loss": 0.9, "seconds": 30.0},
        {"epoch": 2, "val_accuracy": 0.75, "val_loss": 1.25, "seconds": 60.0},
        {"epoch": 3, "val_accuracy": float("nan"), "val_loss": 2.0, "seconds": 30.0},
    ]
    rows = [{"loss": 1.0, "accuracy": 0.5, "learning_rate": 0.1, **row} for row in rows]
    history.write(tmp_path / "run", rows, ("main",))
    done = commands.run("compare", f"--output={tmp_path / 'picture.png'}", tmp_path / "run")
    row = done.stdout.splitlines()[2].split(" | ")
    expected = "alexnet, adam 0.001, 7, 3, 2, 75.00%, 0.9000, 2.0, unfinished |"
    assert row[1:] == expected.split(", ")
