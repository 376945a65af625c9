import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from flowers_jax.process.errors import UserError

BENCHMARKS = Path("benchmarks").absolute()


def run(tmp_path, *flags, script="benchmark.py"):
    return subprocess.run(
        [sys.executable, BENCHMARKS / script, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
    )


@pytest.mark.slow
def test_the_table_holds_the_medians_of_all_implementations(image_folder, tmp_path):
    done = run(
        tmp_path,
        "--models=pilot_cnn",
        "--steps=3",
        "--out=times.json",
        f"--data.dir={image_folder}",
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "times.json").read_text())
    decoded = record["decoded_images_per_second"]
    assert set(decoded) == {"ours", "keras"}
    for name, speeds in decoded.items():
        assert len(speeds) == 20
        assert f"decoding, {name}: {statistics.median(speeds):.0f} images/s" in done.stdout
    measured = record["models"]["pilot_cnn"]
    peers = {"torch"} if importlib.util.find_spec("torch") else set()
    assert set(measured) == {"ours", "plain", "keras", *peers}
    rows = [line for line in done.stdout.splitlines() if line.startswith("| pilot_cnn")]
    ours = measured["ours"]["median_ms"]
    for row, (name, found) in zip(rows, measured.items(), strict=True):
        median = 1e3 * statistics.median(found["seconds"])
        assert found["median_ms"] == pytest.approx(median)
        # Two convolutions and two dense layers, forward and twice backward, of 32 images: at
        # least 20 GFLOP.
        assert found["gflops"] * median / 1e3 > 20
        assert f"| {name} | {median:.1f} | {ours / median:.2f} |" in row
        # 48 training images in two steps.
        assert found["images_per_second"] == pytest.approx(48 / found["epoch_seconds"][0])


@pytest.mark.slow
def test_the_stages_of_the_first_step_are_parts_of_it(tmp_path):
    done = run(tmp_path, "--models=pilot_cnn", "--steps=1", script="first_step.py")
    assert done.returncode == 0, done.stderr
    header, _, *rows = (line.strip("| ").split(" | ") for line in done.stdout.splitlines())
    assert [row[:2] for row in rows] == [
        ["pilot_cnn", "first state"],
        ["pilot_cnn", "training step"],
    ]
    step = dict(zip(header, rows[1], strict=True))
    compiled, done_after = float(step["compile"]), float(step["until done"])
    assert 0 < compiled < done_after  # no cache was found
    # The step alone is what remains of the first one, and less.
    assert 0 < float(step["ms per step"]) < 1e3 * done_after


@pytest.mark.parametrize("script", ["benchmark.py", "first_step.py"])
@pytest.mark.parametrize("model", ["resnet", ""])
def test_an_unknown_model_is_named(tmp_path, script, model):
    done = run(tmp_path, f"--models={model}", script=script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --models={model}: choose from pilot_cnn")


def test_what_cannot_be_measured_is_said_before_anything_is(image_folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    images = f"--data.dir={image_folder}"
    for flags, platform, sentence in (
        ([images, f"--out={tmp_path}"], "cpu", f"{tmp_path} is a folder; name a file to write."),
        ([f"--data.dir={tmp_path / 'empty'}"], "cpu", "empty holds no class folders"),
        ([images], "cuda", "JAX finds no device of cuda"),
    ):
        monkeypatch.setenv("JAX_PLATFORMS", platform)
        done = run(tmp_path, "--peers=", *flags)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


def test_a_process_that_dies_ends_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    alone = importlib.import_module("alone")
    assert alone.call(math.sqrt, 4.0) == 2.0
    with pytest.raises(UserError, match="the process of abort has died"):
        alone.call(os.abort)
