import re
import subprocess
import sys
from pathlib import Path

import commands
import pytest

from flowers_jax.process.errors import UserError
from flowers_jax.runs import run_folder
from flowers_jax.train import train_and_evaluate


def test_differences_name_the_dotted_keys():
    old = {"a": 1, "b": {"c": 2, "d": None}}
    new = {"a": 1, "b": {"c": 3, "d": None}, "e": "x"}
    assert run_folder.differences(old, new) == ["b.c was 2 and is 3", "e was None and is 'x'"]


def test_run_folders_are_set_aside_one_after_the_other(tmp_path):
    workdir = tmp_path / "run"
    assert run_folder.set_aside(workdir) is None
    for number in (1, 2):
        workdir.mkdir()
        (workdir / "config.json").write_text("{}")
        assert run_folder.set_aside(workdir) == tmp_path / f"run.old{number}"


def test_only_a_run_folder_is_set_aside(tmp_path, monkeypatch):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="is not a run folder"):
        run_folder.set_aside(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is the current folder"):
        run_folder.set_aside(Path("."))
    assert (tmp_path / "thesis.tex").exists()


# Another process: the lock is the operating system's, and goes when its holder is killed.
HOLDER = """
import sys, time
from pathlib import Path
from flowers_jax.runs import run_folder
with run_folder.lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_that_another_process_trains_is_left_alone(tiny_config, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, workdir], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(run_folder.Busy, match=f"trained by process {holder.pid} on "):
            train_and_evaluate(tiny_config, workdir)
        assert not (workdir / "config.json").exists()
    finally:
        holder.kill()
        holder.communicate()
    tiny_config.max_epochs = 1
    assert train_and_evaluate(tiny_config, workdir)["epochs_run"] == 1


def test_the_second_of_two_commands_on_one_folder_says_who_has_it(image_folder, tmp_path):
    settings = {
        "model": "pilot_cnn",
        "image_size": 16,
        "max_epochs": 100_000,
        "early_stopping.patience": 100_000,
        "data.dir": image_folder,
    }
    flags = ["--config=configs/common.py", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--config.{key}={value}" for key, value in settings.items()]
    first = commands.Command("main", *flags)
    try:
        for line in first.stdout:
            if line.startswith("epoch "):
                break
        for flag in ("", "--restart"):
            second = commands.run("main", *flags, *filter(None, [flag]))
            assert second.returncode == 2
            assert re.search(rf"being trained by process {first.pid} on ", second.stderr)
    finally:
        first.kill()
        first.communicate()
