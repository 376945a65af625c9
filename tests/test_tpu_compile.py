"""The steps compile for TPUs; libtpu compiles them without one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path("benchmarks/tpu_compile.py").absolute()
LIBTPU = importlib.util.find_spec("libtpu")


def run(folder, *flags):
    return subprocess.run(
        [sys.executable, SCRIPT, *flags],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
    )


# GoogLeNet's images come as they are: there the compiler aborts without the barrier of `scale`.
@pytest.mark.slow
@pytest.mark.skipif(LIBTPU is None, reason="libtpu is not installed: pip install '.[tpu-compile]'")
@pytest.mark.parametrize(
    "config", ["improvement_0_base", "improvement_5_augmentation", "googlenet_sgd"]
)
def test_a_training_step_compiles_for_eight_chips(tmp_path, config):
    flags = [f"--configs={config}", "--topologies=v5e:2x4", "--steps=train", "--out=found.json"]
    done = run(tmp_path, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "found.json").read_text())["steps"]
    assert row["error"] is None
    assert f"| {config} | v5e:2x4 | train | {row['seconds']:.0f} |" in done.stdout
    assert 0 < row["argument_bytes"] + row["temporary_bytes"] < 16e9
    assert row["collectives"]["all-reduce"] > 0  # of the gradients
    assert row["least_seconds"] == pytest.approx(
        max(row["flops"] / 197e12, row["bytes_accessed"] / 819e9)
    )


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--topologies=v5e:3x3", "--topologies=v5e:3x3: choose from v5e:1x1, v5e:2x2, v5e:2x4."),
        ("--steps=fit", "--steps=fit: choose from train, eval, predict."),
        ("--configs=resnet", "--configs=resnet matches none of alexnet_adadelta, "),
    ],
)
def test_what_does_not_exist_is_named(tmp_path, flag, sentence):
    done = run(tmp_path, flag)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}")


@pytest.mark.skipif(LIBTPU is not None, reason="libtpu is installed")
def test_without_libtpu_the_extra_is_named(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: libtpu, which compiles for TPUs, is not installed; pip install '.[tpu-compile]'.\n"
    )
