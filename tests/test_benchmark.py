import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path("benchmarks/benchmark.py").absolute()


def run(tmp_path, *flags):
    return subprocess.run(
        [sys.executable, SCRIPT, *flags],
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
        assert f"| {name} | {median:.0f} | {ours / median:.2f} |" in row
        # 48 training images in two steps.
        assert found["images_per_second"] == pytest.approx(48 / found["epoch_seconds"][0])


def test_an_unknown_model_is_named(tmp_path):
    done = run(tmp_path, "--models=resnet")
    assert done.returncode == 2
    assert "--models=resnet: choose from pilot_cnn" in done.stderr
