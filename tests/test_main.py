"""Whole runs, as a user starts them."""

import csv
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image
from support import without_seconds

from flowers_jax import run
from flowers_jax.process.errors import ResultsIncomplete, UserError
from flowers_jax.runs import history, plots, run_folder
from flowers_jax.train import train_and_evaluate


@pytest.mark.versions
def test_a_run_leaves_the_whole_run_folder(tiny_config, tmp_path, caplog):
    tiny_config.study_run = "pilot_adadelta"
    tiny_config.early_stopping.monitor, tiny_config.early_stopping.mode = "val_loss", "min"
    workdir = tmp_path / "run"
    with caplog.at_level(logging.INFO):
        summary = train_and_evaluate(tiny_config, workdir)
    names = {path.name for path in workdir.iterdir()}
    assert {
        "config.json",
        "augmented.png",
        "history.csv",
        "summary.json",
        "curves.png",
        "confusion_matrix.png",
        "confusion_matrix.csv",
        "classification_report.txt",
        "predictions.csv",
        "confidence.png",
        "model.txt",
        "checkpoints",
    } <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.endswith(".part") for name in names)
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert (summary["num_train"], summary["num_validation"]) == (48, 12)
    assert summary["data_source"] == "folder images"
    for name in ("curves.png", "confusion_matrix.png", "confidence.png"):
        with Image.open(workdir / name) as image:
            assert min(image.size) > 400

    epochs = history.read(workdir)
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert summary["best_val_accuracy"] == max(row["val_accuracy"] for row in epochs)
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    best = min(epochs, key=lambda row: row["val_loss"])
    assert (summary["best_epoch"], summary["monitor"]) == (best["epoch"], "val_loss")
    assert summary["best_epoch_val_accuracy"] == best["val_accuracy"]
    said = f"best epoch {best['epoch']} of 3 by val_loss, its validation accuracy "
    assert f"{said}{100 * best['val_accuracy']:.2f} %" in caplog.text

    # Three files hold the same predictions of the best weights.
    rows = list(csv.DictReader((workdir / "predictions.csv").open()))
    assert len(rows) == 12
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == pytest.approx(summary["reported_val_accuracy"])
    for row in rows:
        chances = {name: float(row[name]) for name in summary["class_names"]}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert max(chances, key=chances.get) == row["predicted"]
        assert f"/{row['label']}/" in row["path"]
    matrix = np.genfromtxt(workdir / "confusion_matrix.csv", delimiter=",", skip_header=1)[:, 1:]
    assert matrix.trace() / matrix.sum() == pytest.approx(summary["reported_val_accuracy"])
    reported = history.read(workdir)[summary["reported_epoch"] - 1]
    for ours, column in (("accuracy", "val_accuracy"), ("log_loss", "val_loss")):
        assert summary["validation"][ours] == pytest.approx(reported[column], rel=1e-5)
    assert summary["validation"]["calibrated_log_loss"] <= summary["validation"]["log_loss"] + 1e-6
    assert not any(name.startswith("test_") for name in names)
    assert f"{right:.4f}" in (workdir / "classification_report.txt").read_text()

    # And whoever loads the run sees what it saw.
    trained = run.load(workdir)
    chances = trained.predict([row["path"] for row in rows])
    for row, chance in zip(rows, chances.tolist(), strict=True):
        expected = [float(row[name]) for name in trained.class_names]
        assert chance == pytest.approx(expected, abs=1e-5)


def test_the_same_seed_gives_the_same_history_and_another_seed_another(tiny_config, tmp_path):
    for name in ("a", "b"):
        train_and_evaluate(tiny_config, tmp_path / name)
    assert without_seconds(tmp_path / "a") == without_seconds(tmp_path / "b")
    tiny_config.seed = 1
    train_and_evaluate(tiny_config, tmp_path / "c")
    assert without_seconds(tmp_path / "a") != without_seconds(tmp_path / "c")


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tiny_config, tmp_path, monkeypatch):
    tiny_config.checkpoint.every_minutes = 0.0
    train_and_evaluate(tiny_config, tmp_path / "whole")
    write = history.write

    def power_cut(workdir, rows, heads):
        if len(rows) == 3:
            raise KeyboardInterrupt
        write(workdir, rows, heads)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(history, "write", power_cut)
        train_and_evaluate(tiny_config, tmp_path / "cut")
    assert len(history.read(tmp_path / "cut")) == 2
    train_and_evaluate(tiny_config, tmp_path / "cut")
    assert without_seconds(tmp_path / "whole") == without_seconds(tmp_path / "cut")
    predictions = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("whole", "cut")]
    assert predictions[0] == predictions[1]


def test_a_finished_run_is_left_alone_and_another_config_refused(tiny_config, tmp_path, caplog):
    tiny_config.max_epochs = 1
    train_and_evaluate(tiny_config, tmp_path / "run")
    before = (tmp_path / "run" / "summary.json").stat().st_mtime_ns
    train_and_evaluate(tiny_config, tmp_path / "run")
    assert (tmp_path / "run" / "summary.json").stat().st_mtime_ns == before
    tiny_config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optimizer.learning_rate was 0.001 and is 0.5.*--restart"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_training_stops_early_and_reports_the_best_epoch(tiny_config, tmp_path):
    tiny_config.max_epochs = 40
    tiny_config.early_stopping.monitor = "val_loss"
    tiny_config.early_stopping.mode = "min"
    tiny_config.early_stopping.patience = 2
    tiny_config.early_stopping.min_delta = 0.3
    summary = train_and_evaluate(tiny_config, tmp_path / "run")
    epochs = history.read(tmp_path / "run")
    assert summary["stopped_early"]
    assert summary["epochs_run"] == len(epochs) == summary["best_epoch"] + 2 < 40
    assert summary["reported_epoch"] == summary["best_epoch"]
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == pytest.approx(epochs[summary["best_epoch"] - 1]["val_accuracy"])


def test_without_restoring_the_last_epoch_is_reported(tiny_config, tmp_path):
    tiny_config.early_stopping.restore_best_weights = False
    tiny_config.early_stopping.min_delta = 1.0  # nothing improves after the first epoch
    summary = train_and_evaluate(tiny_config, tmp_path / "run")
    assert (summary["best_epoch"], summary["reported_epoch"]) == (1, 3)
    # And the weights that are loaded are those that are reported.
    rows = list(csv.DictReader((tmp_path / "run" / "predictions.csv").open()))
    trained = run.load(tmp_path / "run")
    chances = trained.predict([row["path"] for row in rows])
    expected = [[float(row[name]) for name in trained.class_names] for row in rows]
    np.testing.assert_allclose(chances, expected, atol=1e-5)
    assert trained.predict([]).shape == (0, 3)


def test_a_finished_run_can_be_given_more_epochs(tiny_config, tmp_path):
    train_and_evaluate(tiny_config, tmp_path / "whole")
    tiny_config.max_epochs = 2
    train_and_evaluate(tiny_config, tmp_path / "run")
    tiny_config.max_epochs = 3
    summary = train_and_evaluate(tiny_config, tmp_path / "run")
    assert summary["epochs_run"] == 3
    assert without_seconds(tmp_path / "run") == without_seconds(tmp_path / "whole")
    tiny_config.max_epochs = 2
    with pytest.raises(UserError, match="max_epochs was 3 and is 2"):
        train_and_evaluate(tiny_config, tmp_path / "run")


def test_a_run_goes_on_with_the_same_images_elsewhere_only(tiny_config, image_folder, tmp_path):
    tiny_config.max_epochs = 1
    train_and_evaluate(tiny_config, tmp_path / "run")
    tiny_config.max_epochs = 2
    moved = image_folder.rename(tmp_path / "moved")
    tiny_config.data.dir = str(moved)
    train_and_evaluate(tiny_config, tmp_path / "run")
    tiny_config.max_epochs = 3
    (moved / "red" / "0.png").unlink()
    with pytest.raises(UserError, match=r"holds a run on other images .*red/0.png is gone from"):
        train_and_evaluate(tiny_config, tmp_path / "run")
    assert len(history.read(tmp_path / "run")) == 2


def test_a_run_folder_among_the_images_is_refused_before_anything_is_written(
    tiny_config, image_folder
):
    before = sorted(image_folder.rglob("*"))
    for workdir in (image_folder, image_folder / "runs" / "x"):
        with pytest.raises(UserError, match="lies in the image folder"):
            train_and_evaluate(tiny_config, workdir)
    assert sorted(image_folder.rglob("*")) == before


def test_a_result_that_cannot_be_written_loses_no_training(tiny_config, tmp_path, monkeypatch):
    def out_of_memory(*arguments):
        raise MemoryError("no room for a picture")

    tiny_config.max_epochs = 1
    monkeypatch.setattr(plots, "confusion_matrix", out_of_memory)
    with pytest.raises(ResultsIncomplete, match=r"validation predictions \(MemoryError: no"):
        train_and_evaluate(tiny_config, tmp_path)
    assert run_folder.read_summary(tmp_path)["epochs_run"] == 1
    assert (tmp_path / "curves.png").exists()
    assert (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_classes", 4, "num_classes=4, but the data has 3 classes"),
        ("data.split", "holdout", "class blue has 20 images, holdout_per_class=80"),
        ("data.dir", "/no/such/folder", "/no/such/folder, which is not a folder"),
        ("dtype", "float16", "dtype='float16' is not one of float32, bfloat16"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(tiny_config, tmp_path, key, value, message):
    tiny_config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=message):
        train_and_evaluate(tiny_config, tmp_path / "run")
    # A failed start does not claim the folder.
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("dtype", "bfloat16"), ("loss", "squared_error"), ("data.split", "none")],
)
def test_options_train(tiny_config, tmp_path, key, value):
    tiny_config.update_from_flattened_dict({key: value})
    train_and_evaluate(tiny_config, tmp_path / "run")
    epochs = history.read(tmp_path / "run")
    assert epochs[-1]["loss"] < epochs[0]["loss"]


SECRET = "what a user keeps in the environment"


@pytest.mark.versions
def test_the_commands(image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", SECRET)
    workdir = tmp_path / "run"
    small = ["--config.image_size=16", "--config.max_epochs=1", "--config.model=pilot_cnn"]
    arguments = ["--config=configs/quickstart.py", f"--workdir={workdir}", *small]
    arguments += ["--config.data.source=folder", f"--config.data.dir={image_folder}"]
    done = commands.run("main", *arguments)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1: loss" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    images = sorted(image_folder.glob("*/0.png"))
    predicted = json.loads(
        commands.run("predict", f"--workdir={workdir}", "--json", *images).stdout
    )
    assert [entry["path"] for entry in predicted] == [str(path) for path in images]

    (image_folder / "red" / "broken.png").write_bytes(b"")
    failed = commands.run("main", *arguments, "--restart")
    assert failed.returncode == 2
    assert "broken.png' is empty" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert Path(f"{workdir}.old1").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which run? Give --config="),
        (["--config=configs/none.py"], "there is no config configs/none.py"),
        (["--config=configs/quickstart.py", "--config.batch_sise=2"], "batch_size"),
        (["--config=configs/quickstart.py", "--config.seed=one"], "--config.seed=one"),
        (
            ["--config=configs/common.py", "--config.optimizer.lr=1"],
            "no setting optimizer.lr, did you mean optimizer.learning_rate?",
        ),
        (
            ["--config=configs/common.py", "--config.optimiser.name=sgd"],
            "--config.optimiser.name=sgd names no setting, did you mean optimizer?",
        ),
        (
            ["--config=configs/common.py", "--config.data.augment.zoom=0.1"],
            "--config.data.augment=\"{'zoom': ...}\"",
        ),
        (
            ["--config=configs/common.py", "--config.early_stopping=None"],
            "A config file can set one to None",
        ),
        (["--confg=configs/quickstart.py"], "Did you mean: config"),
        (
            ["--config=configs/quickstart.py", "--process_id=0"],
            "--process_id=0 needs --distributed.",
        ),
        (["--config=configs/quickstart.py", "--config.model=foo"], "model='foo' is not one of"),
    ],
)
def test_a_wrong_command_is_one_sentence_with_status_2(arguments, message, tmp_path):
    failed = commands.run("main", f"--workdir={tmp_path / 'run'}", *arguments)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_more_memory_than_there_is_is_one_sentence(image_folder, tmp_path):
    failed = commands.run(
        "main",
        "--config=configs/improvement_2_gap.py",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={image_folder}",
        "--config.image_size=64",
        "--config.model_args.last_features=1000000000",
    )
    assert failed.returncode == 2
    assert failed.stderr == (
        "error: there is not enough memory (Out of memory allocating 3456000000000 bytes); take a "
        "smaller batch_size, or fewer runs at once.\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "environment"),
    [
        ("", {"MPLBACKEND": "module://a_notebook.that_is_not_installed"}),
        ("", {"MPLBACKEND": "nonsense"}),
        ("", {"HOME": None, "XDG_CACHE_HOME": None, "JAX_COMPILATION_CACHE_DIR": None}),
        ("", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        (" >&-", {}),
        (" | head -1", {}),
    ],
)
def test_odd_surroundings_change_nothing(image_folder, tmp_path, redirection, environment):
    name = "red" if "LC_ALL" in environment else "rosé 花"
    (image_folder / "red").rename(image_folder / name)
    flags = {"model": "pilot_cnn", "image_size": 16, "max_epochs": 1, "data.dir": image_folder}
    config = Path.cwd() / "configs" / "common.py"
    command = [sys.executable, "-m", "flowers_jax.main", f"--config={config}"]
    command += [f"--config.{key}={value}" for key, value in flags.items()]
    # Started from another folder than the clone.
    everywhere = {**os.environ, "PYTHONPATH": str(Path.cwd()), **environment}
    done = subprocess.run(
        shlex.join([*command, f"--workdir={tmp_path / 'run'}"]) + redirection,
        shell=True,
        cwd=tmp_path,
        env={key: value for key, value in everywhere.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    # With stdout closed the messages go there.
    assert done.stderr == "" or redirection == " >&-"
    assert "Traceback" not in done.stderr
    assert run_folder.read_summary(tmp_path / "run")["epochs_run"] == 1
    assert name in (tmp_path / "run" / "predictions.csv").read_text("utf-8")


def test_the_terminal_shows_our_own_lines_only(image_folder, tmp_path):
    photograph = image_folder / "red" / "a PNG.jpg"
    photograph.write_bytes((image_folder / "red" / "0.png").read_bytes())
    flags = {"model": "pilot_cnn", "image_size": 16, "max_epochs": 1, "data.dir": image_folder}

    def command(module, *arguments):  # a Python of its own, whose imports may say something
        line = [sys.executable, "-m", f"flowers_jax.{module}", *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, timeout=300)

    done = command(
        "main",
        "--config=configs/common.py",
        f"--workdir={tmp_path / 'run'}",
        *(f"--config.{key}={value}" for key, value in flags.items()),
    )
    assert done.stderr == ""
    starts = (
        "jax ",
        "decoded images",
        "61 images",
        "folder images",
        "pilot_cnn",
        "compil",
        "epoch",
        "validation: ",
    )
    assert all(line.startswith((*starts, "best epoch")) for line in done.stdout.splitlines())
    predicted = command("predict", f"--workdir={tmp_path / 'run'}", photograph)
    assert (predicted.returncode, predicted.stdout.count("\n")) == (0, 1)
    assert predicted.stderr == ""


def test_the_test_images_are_scored_once_with_the_weights_that_the_run_keeps(tiny_config, tmp_path):
    tiny_config.data.update(split="stratified", test_fraction=0.25)
    tiny_config.max_epochs = 2
    workdir = tmp_path / "run"
    summary = train_and_evaluate(tiny_config, workdir)
    assert (summary["num_train"], summary["num_validation"], summary["num_test"]) == (33, 12, 15)
    rows = list(csv.DictReader((workdir / "test_predictions.csv").open()))
    listed = list(csv.DictReader((workdir / "images.csv").open()))
    tested = {row["name"] for row in listed if row["split"] == "test"}
    assert {"/".join(row["path"].split("/")[-2:]) for row in rows} == tested
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == pytest.approx(summary["test"]["accuracy"])
    low, high = summary["test"]["interval"]
    assert 0 <= low < right <= high <= 1
    probabilities = run.load(workdir).predict([row["path"] for row in rows])
    ours = [[float(row[name]) for name in summary["class_names"]] for row in rows]
    np.testing.assert_allclose(probabilities, ours, atol=1e-5)
    for name in ("confusion_matrix.csv", "confusion_matrix.png", "classification_report.txt"):
        assert (workdir / f"test_{name}").exists()
