"""Interrupted runs: they lose minutes, never their result."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from support import without_seconds

from flowers_jax.process.errors import Interrupted, UserError
from flowers_jax.runs import history, progress
from flowers_jax.train import train_and_evaluate


def final_weights(workdir):
    """The arrays of the newest checkpoint, read with orbax alone."""
    steps = [int(path.name) for path in (workdir / "checkpoints").iterdir()]
    path = workdir / "checkpoints" / str(max(steps))
    with ocp.StandardCheckpointer() as checkpointer:
        return [checkpointer.restore((path / name).absolute()) for name in ("state", "best")]


def assert_the_same_run(a, b):
    assert without_seconds(a) == without_seconds(b)
    assert (a / "predictions.csv").read_bytes() == (b / "predictions.csv").read_bytes()
    jax.tree.map(np.testing.assert_array_equal, final_weights(a), final_weights(b))


def interrupt_at(monkeypatch, number, step):
    """Sends this process the signal in the given step, counted over the epochs."""
    advance, steps = progress.EpochBar.advance, []

    def counted(bar, metrics):
        advance(bar, metrics)
        steps.append(metrics)
        if len(steps) == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(progress.EpochBar, "advance", counted)


@pytest.mark.parametrize(
    ("number", "step", "place"),
    [
        pytest.param(signal.SIGTERM, 5, "epoch 2, step 2", marks=pytest.mark.versions),
        (signal.SIGINT, 6, "epoch 2, step 3"),  # the last of the epoch: only validation is left
    ],
)
def test_a_signal_saves_the_step_it_came_in(
    tiny_config, tmp_path, monkeypatch, number, step, place
):
    train_and_evaluate(tiny_config, tmp_path / "whole")
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=place) as interrupted:
        interrupt_at(patch, number, step)
        train_and_evaluate(tiny_config, tmp_path / "cut")
    assert interrupted.value.signal == number
    assert signal.getsignal(number) == handler
    train_and_evaluate(tiny_config, tmp_path / "cut")
    assert_the_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.fixture
def cut_run(tiny_config, tmp_path, monkeypatch):
    """A run that was interrupted in its third epoch, with two checkpoints."""
    tiny_config.checkpoint.every_minutes = 0.0
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, signal.SIGTERM, 8)
        train_and_evaluate(tiny_config, tmp_path / "cut")
    return tmp_path / "cut"


def checkpoints_newest_first(workdir):
    return sorted((workdir / "checkpoints").iterdir(), key=lambda path: -int(path.name))


def truncate(checkpoint):
    for path in checkpoint.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


@pytest.mark.versions
def test_a_truncated_checkpoint_falls_back_to_the_one_before(
    cut_run, tiny_config, tmp_path, caplog
):
    newest, before = checkpoints_newest_first(cut_run)
    truncate(newest)
    caplog.set_level("INFO")
    train_and_evaluate(tiny_config, cut_run)
    assert f"{newest} cannot be read" in caplog.text
    assert f"taking {before.name}" in caplog.text
    assert "goes on after epoch 2" in caplog.text
    train_and_evaluate(tiny_config, tmp_path / "whole")
    assert_the_same_run(tmp_path / "whole", cut_run)


def test_without_a_readable_checkpoint_the_run_says_so_and_deletes_nothing(cut_run, tiny_config):
    for checkpoint in checkpoints_newest_first(cut_run):
        truncate(checkpoint)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read .*--restart"):
        train_and_evaluate(tiny_config, cut_run)
    assert len(checkpoints_newest_first(cut_run)) == 2


def command(image_folder, workdir, *flags):
    flags = [
        "--config=configs/common.py",
        f"--workdir={workdir}",
        "--config.model=pilot_cnn",
        "--config.image_size=16",
        "--config.batch_size=16",
        "--config.data.source=folder",
        f"--config.data.dir={image_folder}",
        *flags,
    ]
    return [sys.executable, "-m", "flowers_jax.main", *flags]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_epochs(process, number=1):
    for line in process.stdout:
        number -= line.startswith("epoch ")
        if not number:
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
def test_a_run_killed_twelve_times_ends_as_if_it_had_not_been(image_folder, tmp_path):
    flags = ["--config.max_epochs=200", "--config.early_stopping.patience=200"]
    flags.append("--config.checkpoint.every_minutes=0")
    moments = random.Random(0)
    epochs = []
    for _ in range(12):
        process = start(image_folder, tmp_path / "killed", *flags)
        # A save waits for the one before: after three epochs of a process the first is on disk.
        wait_for_epochs(process, moments.choice([1, 1, 3]))
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        for path in (tmp_path / "killed").glob("*.json"):
            json.loads(path.read_text())
        epochs.append(len(history.read(tmp_path / "killed")))
    assert epochs[-1] > epochs[0]  # it gets on between the kills
    for name in ("killed", "whole"):
        subprocess.run(command(image_folder, tmp_path / name, *flags), check=True, timeout=300)
    assert_the_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_command_ends_with_the_status_of_the_signal(image_folder, tmp_path, number):
    process = start(image_folder, tmp_path / "run", "--config.max_epochs=100000")
    wait_for_epochs(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert re.search(r"interrupted in epoch \d+, step \d+; the same command goes on", errors)
    assert "Traceback" not in errors


@pytest.mark.slow
def test_memory_is_flat_over_fifty_epochs(image_folder, tmp_path):
    flags = ["--config.max_epochs=70", "--config.early_stopping.patience=70"]
    process = start(image_folder, tmp_path / "run", *flags)
    resident = []
    for line in process.stdout:
        if line.startswith("epoch "):
            status = Path(f"/proc/{process.pid}/status").read_text()
            resident.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]))
    assert process.wait() == 0
    assert len(resident) == 70
    assert resident[69] < 1.02 * resident[19]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_is_intact(image_folder, small_disk):
    flags = ["--config.max_epochs=100000", "--config.early_stopping.patience=100000"]
    flags.append("--config.checkpoint.every_minutes=0.1")
    process = start(image_folder, small_disk / "run", *flags)
    checkpoints = small_disk / "run" / "checkpoints"
    while not (checkpoints.is_dir() and any(p.name.isdecimal() for p in checkpoints.iterdir())):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    ballast = small_disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    # Where the disk fills while a checkpoint is written, tensorstore prints tracebacks before it.
    assert errors.count("error:") == 1
    assert re.search(r"the disk of .* is full: \d MB are free", errors)
    ballast.unlink()

    process = start(image_folder, small_disk / "run", *flags)
    for line in process.stdout:
        if line.startswith("goes on after epoch"):
            break
    wait_for_epochs(process)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
