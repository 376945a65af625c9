"""The steps compile for TPUs; libtpu compiles them without one."""

import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowers_jax.data import scaling

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


needs_libtpu = pytest.mark.skipif(
    LIBTPU is None, reason="libtpu is not installed: pip install '.[tpu-compile]'"
)


def compile_gradient_of_a_first_convolution():
    """For the kernel, on eight chips with four images each."""
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x4", chips_per_host_bounds=(2, 4, 1)
    )
    mesh = Mesh(np.array(topology.devices), ("data",))

    def shape(dtype, *dimensions, axes=()):
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.ShapeDtypeStruct(dimensions, dtype, sharding=sharding)

    def objective(kernel, images):
        layout = ("NHWC", "HWIO", "NHWC")
        x = scaling.scale(images, "none")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        return lax.max(x, 0.0).sum()

    kernel = shape(np.float32, 3, 3, 3, 64)
    images = shape(np.uint8, 32, 224, 224, 3, axes=("data",))
    jax.jit(jax.grad(objective)).lower(kernel, images).compile()


@needs_libtpu
def test_unscaled_images_do_not_abort_the_compiler(monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("TPU_WORKER_ID", "0")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(compile_gradient_of_a_first_convolution).result()


@pytest.mark.slow
@needs_libtpu
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
        ("--topologies=", "--topologies=: choose from v5e:1x1, v5e:2x2, v5e:2x4."),
        ("--configs=", "--configs= matches none of alexnet_adadelta, "),
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
