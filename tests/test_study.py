import csv
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowers_jax import results, study


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
    assert study.interval([summary(0.8)]) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half))
    )


def test_the_interval_of_three_seeds_is_students():
    # The 97.5 % quantile of Student's distribution with two degrees of freedom is 4.302653.
    mean, error = 80.0, 1.0 / math.sqrt(3)
    low, high = study.interval([summary(p) for p in (0.79, 0.80, 0.81)])
    assert (low, high) == pytest.approx((mean - 4.302653 * error, mean + 4.302653 * error))
    assert study.interval([summary(0.8)] * 3) == pytest.approx((80, 80))


def test_a_row_compares_like_with_like():
    row = study.row("improvement_2_gap", [summary(0.75, 0.76), summary(0.77, 0.78)])
    assert tuple(row) == study.COLUMNS
    assert row["study_max_val_accuracy"] == 75.32  # the table: the last epoch
    assert row["study_best_epoch_val_accuracy"] == pytest.approx(77.87)  # its log
    assert row["max_val_accuracy"] == pytest.approx(77)
    assert row["max_val_accuracy_sd"] == pytest.approx(math.sqrt(2))
    assert row["difference"] == pytest.approx(77 - 77.87)
    assert row["restored_val_accuracy"] == pytest.approx(76)
    assert row["minutes"] == 2
    empty = study.row("vgg16_sgd", [])
    assert empty["seeds"] == 0
    assert empty["state"] == "not run"
    assert empty["difference"] is None is empty["study_best_epoch_val_accuracy"]


def test_a_row_says_what_was_shortened():
    cut = summary(0.7, stopped_early=False, epochs_run=12)
    assert study.state("improvement_2_gap", [summary(0.7)]) == "in full"
    assert study.state("improvement_2_gap", [summary(0.7), cut]) == "shortened to 12 of 150 epochs"
    assert study.state("googlenet_sgd", [summary(0.7, stopped_early=False, epochs_run=200)]) == (
        "in full"
    )
    assert study.state("googlenet_adam", [summary(0.7)]) == "in full"
    assert study.state("googlenet_adam", [cut]) == "12 epochs"  # the study has no such run


@pytest.mark.slow
def test_the_command_goes_on_after_a_failure_and_skips_what_is_finished(image_folder, tmp_path):
    script = Path.cwd() / "scripts" / "run_study.py"

    def run_study(*flags):
        return subprocess.run(
            [
                sys.executable,
                script,
                f"--data.dir={image_folder}",
                *flags,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
        )

    flags = ("--only=improvement_2_gap,improvement_5_augmentation", "--epochs=1")
    set_aside = tmp_path / "runs" / "study_1_epochs" / "improvement_2_gap" / "seed_0.old1"
    set_aside.mkdir(parents=True)
    (set_aside / "summary.json").write_text("{}")
    first = run_study(*flags)
    assert first.returncode == 1
    assert "improvement_5_augmentation/seed_0: class blue has 20 images" in first.stderr
    second = run_study(*flags)
    assert "epoch 1/1" in first.stdout
    assert "epoch 1/1" not in second.stdout
    with open(tmp_path / "runs" / "study_1_epochs" / "table.csv", newline="") as file:
        rows = {row["config"]: row for row in csv.DictReader(file)}
    assert len(rows) == 23
    assert rows["improvement_2_gap"]["state"] == "shortened to 1 of 150 epochs"
    assert rows["improvement_5_augmentation"]["state"] == "not run, 0 of 1 seeds finished, failed"
    assert rows["vgg16_adam"]["state"] == "not run"
    assert float(rows["improvement_2_gap"]["epochs"]) == 1
    assert rows["improvement_2_gap"]["seeds"] == "1"
    assert "googlenet_adam" not in rows  # the study left it out, and nobody asked
    unknown = run_study("--only=vgg19_*")
    assert unknown.returncode == 2
    assert "--only=vgg19_* matches no run" in unknown.stderr


def test_seeds_of_a_config_are_grouped_unless_begun_alone(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend("scripts")
    import runner

    def runs(name, seeds):
        return [
            runner.Run(name, {"seed": seed}, tmp_path / name / f"seed_{seed}") for seed in seeds
        ]

    base, alexnet = runs("improvement_0_base", (0, 1, 2)), runs("alexnet_sgd", (0, 2))
    assert runner._groups(base + alexnet) == [base, *([run] for run in alexnet)]
    base[1].workdir.mkdir(parents=True)
    assert runner._groups(base) == [[run] for run in base]


# Seeds that are trained at once need an accelerator; that they fail and are tried alone does not.
FALLBACK = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
import runner
if __name__ == "__main__":
    changes = {"model": "pilot_cnn", "image_size": 16, "max_epochs": 1, "data.dir": sys.argv[2]}
    root = Path(sys.argv[3])
    group = [runner.Run("common", {**changes, "seed": s}, root / f"seed_{s}") for s in (0, 1)]
    failures = runner._train_group(group)
    print(json.dumps({path.name: why for path, why in failures.items()}))
"""


@pytest.mark.slow
def test_where_one_of_several_seeds_fails_the_others_are_trained_alone(image_folder, tmp_path):
    (tmp_path / "fallback.py").write_text(FALLBACK)
    other = tmp_path / "runs" / "seed_1"
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"model": "alexnet"}')  # refused: another run's folder
    done = subprocess.run(
        [sys.executable, tmp_path / "fallback.py", "scripts", image_folder, other.parent],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    failures = json.loads(done.stdout.splitlines()[-1])
    assert list(failures) == ["seed_1"]
    assert "other settings" in failures["seed_1"]
    assert results.read_summary(tmp_path / "runs" / "seed_0")["epochs_run"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["runs/study/", "epoch 1/"])  # it starts, it trains
def test_a_sigterm_reaches_the_run_and_leaves_a_table(image_folder, tmp_path, moment):
    command = [sys.executable, Path.cwd() / "scripts" / "run_study.py", "--only=improvement_2_gap"]
    environment = {**os.environ, "PYTHONPATH": ""}
    process = subprocess.Popen(
        [*command, f"--data.dir={image_folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    for line in process.stdout:
        if line.startswith(moment):
            break
    time.sleep(1)  # the child imports for longer than that
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "the same command goes on from there" in errors
    study_folder = tmp_path / "runs" / "study"
    with open(study_folder / "table.csv", newline="") as file:
        rows = {row["config"]: row for row in csv.DictReader(file)}
    assert rows["improvement_2_gap"]["state"] == "not run, 0 of 1 seeds finished"
    checkpoints = study_folder / "improvement_2_gap" / "seed_0" / "checkpoints"
    assert checkpoints.exists() == (moment == "epoch 1/")
