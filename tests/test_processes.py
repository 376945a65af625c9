"""Two real processes on this host that train one run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from flowers_jax.data import folder
from flowers_jax.runs import history

pytestmark = pytest.mark.slow


def command(model, image_folder, workdir, max_epochs, *flags):
    settings = {
        "model": model,
        "image_size": 64,
        "batch_size": 16,
        "optimizer.name": "sgd",
        # Small enough that the loss falls slowly: near zero it shows every rounding.
        "optimizer.learning_rate": 1e-4,
        "early_stopping.patience": 100_000,
        "checkpoint.every_minutes": 0,
        "max_epochs": max_epochs,
        "data.source": "folder",
        "data.dir": image_folder,
    }
    flags += ("--config=configs/common.py", f"--workdir={workdir}")
    flags += tuple(f"--config.{key}={value}" for key, value in settings.items())
    return [sys.executable, "-m", "flowers_jax.main", *flags]


def start_two(model, folders, workdir, max_epochs, *flags):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    joined = ("--distributed", f"--coordinator=localhost:{port}", "--num_processes=2")
    return [
        subprocess.Popen(
            [*command(model, images, workdir, max_epochs, *joined, f"--process_id={i}"), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, images in enumerate(folders)
    ]


def assert_the_same_history(a, b):
    histories = [history.read(workdir) for workdir in (a, b)]
    assert len(histories[0]) == len(histories[1])
    for ours, theirs in zip(*histories, strict=True):
        for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
            # Sums in another order differ in the last bits, and training makes more of it.
            tolerance = 1e-5 if ours["epoch"] == 1 else 1e-4
            assert ours[column] == pytest.approx(theirs[column], rel=tolerance)


def test_two_processes_give_the_history_of_one_and_read_only_their_share(image_folder, tmp_path):
    subprocess.run(
        command("improvement_4", image_folder, tmp_path / "one", 3), check=True, timeout=300
    )
    # Each has a copy of the images in which the share of the other is empty.
    folders = [tmp_path / "first" / "images", tmp_path / "second" / "images"]
    for i, copy in enumerate(folders):
        shutil.copytree(image_folder, copy)
        for split in folder.keras_split(folder.scan(copy), 0.2, 1337):
            half = len(split) // 2
            for path in split.paths[half:] if i == 0 else split.paths[:half]:
                open(path, "w").close()
    processes = start_two("improvement_4", folders, tmp_path / "two", 3)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "epoch 3/3" in outputs[0][0]
    assert "epoch" not in outputs[1][0]
    assert_the_same_history(tmp_path / "one", tmp_path / "two")
    probabilities = [
        np.genfromtxt(tmp_path / name / "predictions.csv", delimiter=",", skip_header=1)[:, 3:]
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(*probabilities, rtol=1e-3, atol=1e-5)


def test_several_processes_keep_the_images_on_their_devices(image_folder, tmp_path):
    flags = ["pilot_cnn", [image_folder] * 2, tmp_path / "run", 1, "--config.data.cache=host"]
    for process in start_two(*flags):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "data.cache='host' needs a single process; several need 'device'" in errors


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_says_so_and_any_number_goes_on(
    image_folder, tmp_path, victim
):
    processes = start_two("pilot_cnn", [image_folder, image_folder], tmp_path / "run", 25)
    for line in processes[0].stdout:
        if line.startswith("epoch 3/"):
            break
    processes[victim].kill()
    start = time.monotonic()
    _, errors = processes[1 - victim].communicate(timeout=120)
    assert time.monotonic() - start < 60
    assert processes[1 - victim].returncode not in (0, -signal.SIGKILL)
    processes[victim].communicate()
    assert re.search("another process of this run has ended|distributed service", errors), errors

    # One process, and so one device, ends what two began.
    done = subprocess.run(
        command("pilot_cnn", image_folder, tmp_path / "run", 25),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"goes on after epoch \d", done.stdout)
    whole = command("pilot_cnn", image_folder, tmp_path / "whole", 25)
    subprocess.run(whole, check=True, timeout=300)
    assert_the_same_history(tmp_path / "whole", tmp_path / "run")
