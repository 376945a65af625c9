"""The study's table, and the command that repeats the study."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowers_jax.process.errors import UserError
from flowers_jax.study import commands, table

SCRIPT = Path("scripts/run_study.py").absolute()


def summary(reported, best=None, **changes):
    return {
        "best_val_accuracy": best or reported,
        "reported_val_accuracy": reported,
        "num_validation": 400,
        "max_train_accuracy": 0.9,
        "epochs_run": 30,
        "stopped_early": True,
        "best_epoch": 20,
        "train_seconds": 120.0,
        "images_per_second": 50.0,
        **changes,
    }


def test_the_interval_of_one_run_is_wilsons():
    n, p, z = 400, 0.8, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert table.interval([summary(0.8)]) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half))
    )


def test_the_interval_of_three_seeds_is_students():
    # The 97.5 % quantile of Student's distribution with two degrees of freedom is 4.302653.
    mean, error = 80.0, 1.0 / math.sqrt(3)
    low, high = table.interval([summary(p) for p in (0.79, 0.80, 0.81)])
    assert (low, high) == pytest.approx((mean - 4.302653 * error, mean + 4.302653 * error))
    assert table.interval([summary(0.8)] * 3) == pytest.approx((80, 80))


def test_a_row_compares_like_with_like():
    row = table.row("improvement_2_gap", [summary(0.75, 0.76), summary(0.77, 0.78)])
    assert table.HEADINGS.keys() <= row.keys()
    assert row["study_max_val_accuracy"] == 75.32  # the table: the last epoch
    assert row["study_best_epoch_val_accuracy"] == pytest.approx(77.87)  # its log
    assert row["max_val_accuracy"] == pytest.approx(77)
    assert row["max_val_accuracy_sd"] == pytest.approx(math.sqrt(2))
    assert row["difference"] == pytest.approx(77 - 77.87)
    assert row["restored_val_accuracy"] == pytest.approx(76)
    assert row["minutes"] == 2
    empty = table.row("vgg16_sgd", [])
    assert empty["seeds"] == 0
    assert empty["state"] == "not run"
    assert empty["difference"] is None is empty["study_best_epoch_val_accuracy"]


def test_a_row_says_what_was_shortened():
    cut = summary(0.7, stopped_early=False, epochs_run=12)
    assert table.state("improvement_2_gap", [summary(0.7)]) == "in full"
    assert table.state("improvement_2_gap", [summary(0.7), cut]) == "shortened to 12 of 150 epochs"
    assert table.state("googlenet_sgd", [summary(0.7, stopped_early=False, epochs_run=200)]) == (
        "in full"
    )
    assert table.state("googlenet_adam", [summary(0.7)]) == "in full"
    assert table.state("googlenet_adam", [cut]) == "12 epochs"  # the study has no such run


def test_the_configs_are_selected_by_patterns():
    assert len(commands.select(None)) == 23
    assert "googlenet_adam" not in commands.select(None)  # the study left it out
    assert commands.select(["googlenet_ad*"]) == [
        "googlenet_adadelta", "googlenet_adam", "googlenet_adagrad"
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"--only=vgg19_\* matches no run"):
        commands.select(["vgg16_*", "vgg19_*"])


def start(image_folder, cwd, *flags):
    """The command, as a user starts it from any folder; an installed copy must not be used."""
    installed = cwd / "installed" / "flowers_jax"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "__init__.py").write_text("raise ImportError('the installed copy')")
    return subprocess.Popen(
        [sys.executable, SCRIPT, f"--data.dir={image_folder}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed.parent)},
        start_new_session=True,
    )


def read_table(folder):
    with open(folder / "table.csv", newline="") as file:
        return {row["config"]: row for row in csv.DictReader(file)}


def test_only_the_runs_start_a_backend(image_folder, tmp_path, monkeypatch):
    # A GPU's memory and a TPU are theirs; here there is no GPU, and only they must notice.
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    process = start(image_folder, tmp_path, "--only=pilot_adadelta", "--epochs=1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors == (
        "failed: runs/study_1_epochs/pilot_adadelta/seed_0: JAX finds no device of cuda; unset "
        "JAX_PLATFORMS, or install jax for it, such as jax[cuda12].\n"
    )
    assert read_table(tmp_path / "runs" / "study_1_epochs")["pilot_adadelta"]["state"]


@pytest.mark.parametrize("flag", ["--jobs=0", "--shard=3/2", "--only="])
def test_a_wrong_flag_is_said_in_a_sentence(image_folder, tmp_path, flag):
    process = start(image_folder, tmp_path, flag)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert errors.startswith("error: ")
    assert flag.partition("=")[0] in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_command_goes_on_after_a_failure_and_skips_what_is_finished(image_folder, tmp_path):
    def run_study():
        only = "--only=improvement_2_gap,improvement_5_augmentation"
        process = start(image_folder, tmp_path, only, "--epochs=1")
        return process, *process.communicate(timeout=300)

    root = tmp_path / "runs" / "study_1_epochs"
    set_aside = root / "improvement_2_gap" / "seed_0.old1"
    set_aside.mkdir(parents=True)
    (set_aside / "summary.json").write_text("{}")
    first, output, errors = run_study()
    assert first.returncode == 1
    assert "improvement_5_augmentation/seed_0: class blue has 20 images" in errors
    assert "epoch 1/1" in output
    _, output, _ = run_study()
    assert "epoch 1/1" not in output
    rows = read_table(root)
    assert len(rows) == 23
    assert rows["improvement_2_gap"]["state"] == "shortened to 1 of 150 epochs"
    assert rows["improvement_5_augmentation"]["state"] == "not run, 0 of 1 seeds finished, failed"
    assert rows["vgg16_adam"]["state"] == "not run"
    assert float(rows["improvement_2_gap"]["epochs"]) == 1
    assert rows["improvement_2_gap"]["seeds"] == "1"
    assert "googlenet_adam" not in rows  # the study left it out, and nobody asked


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["runs/study/", "epoch 1/"])  # it starts, it trains
def test_a_sigterm_reaches_the_run_and_leaves_a_table(image_folder, tmp_path, moment):
    process = start(image_folder, tmp_path, "--only=improvement_2_gap")
    for line in process.stdout:
        if line.startswith(moment):
            break
    time.sleep(1)  # the child imports for longer than that
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "the same command goes on from there" in errors
    root = tmp_path / "runs" / "study"
    assert read_table(root)["improvement_2_gap"]["state"] == "not run, 0 of 1 seeds finished"
    checkpoints = root / "improvement_2_gap" / "seed_0" / "checkpoints"
    assert checkpoints.exists() == (moment == "epoch 1/")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_all_that_run_at_once(image_folder, tmp_path, number):
    names = ("improvement_0_base", "improvement_2_gap")
    only = "--only=" + ",".join((*names, "improvement_3_gap_conv5x5"))
    process = start(image_folder, tmp_path, only, "--jobs=2")
    training = set()
    for line in process.stdout:
        training |= {name for name in names if line.startswith(f"{name}/seed_0: epoch 1/")}
        if training == set(names):
            break
    if number == signal.SIGTERM:
        process.terminate()
    else:
        os.killpg(process.pid, number)  # as the terminal does
        if number == signal.SIGHUP:  # of which the shell tells, too
            os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    root = tmp_path / "runs" / "study"
    for name in names:
        assert (root / name / "seed_0" / "checkpoints").exists()
        assert f"runs/study/{name}/seed_0, epoch " in errors
    assert "the same command goes on from there" in errors
    assert "improvement_3_gap_conv5x5" not in output  # nothing starts any more
    assert (root / "table.csv").exists()
