"""Many runs, each in a process of its own."""

import os
import re
import signal
import threading
import time

import pytest

from flowers_jax import settings
from flowers_jax.process.errors import UserError
from flowers_jax.runs import history, run_folder
from flowers_jax.study import runner
from flowers_jax.study.runner import Run


@pytest.fixture
def tiny_run(image_folder, tmp_path):
    """A run of the pilot network at 16 px, by the name of its folder and further changes."""
    common = {"model": "pilot_cnn", "image_size": 16, "max_epochs": 2}
    common |= {"data.source": "folder", "data.dir": str(image_folder)}
    return lambda name, **changes: Run("common", common | changes, tmp_path / "runs" / name)


def without_seconds(workdir):
    return [{**row, "seconds": None} for row in history.read(workdir)]


def test_a_run_is_a_config_with_changes(tmp_path):
    changes = {
        "seed": 3,
        "model_args.last_kernel": 5,
        "optimizer.name": "sgd",
        "data.augment": {"zoom": 0.1},
    }
    config = Run("improvement_0_base", changes, tmp_path).load()
    assert (config.seed, config.optimizer.name) == (3, "sgd")
    assert config.model_args.to_dict() == {"last_kernel": 5}
    assert config.data.augment.to_dict() == {
        "rotation_degrees": 0.0, "zoom": 0.1, "horizontal_flip": False, "vertical_flip": False
    }  # fmt: skip
    settings.check(config)


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        ("resnet", {}, "there is no config 'resnet'; give a name of configs/."),
        ("quickstart.py", {}, "there is no config 'quickstart.py'"),
        ("common", {"data.augment.zoom": 0.1}, '"data.augment" is not a ConfigDict'),
        ("common", {"optimiser.name": "sgd"}, '"optimiser" was not found; give a group as a whole'),
    ],
)
def test_a_run_that_no_config_describes_is_one_sentence(tmp_path, config, changes, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        Run(config, changes, tmp_path).load()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_run_is_in_exactly_one_shard(tmp_path, count):
    runs = [Run("common", {}, tmp_path / str(i)) for i in range(7)]
    shards = [runner.shard(runs, f"{i}/{count}") for i in range(1, count + 1)]
    assert sorted(run.workdir for shard in shards for run in shard) == [r.workdir for r in runs]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    "part", ["3/2", "0/2", "0/0", "-1/2", "x", "1", "1/", "1/2/3", "1.5/2", ""]
)
def test_a_shard_that_is_none_is_refused(part):
    with pytest.raises(UserError, match=r"--shard=.* is not I/N with I from 1 to N"):
        runner.shard([], part)


def made(run):
    run.workdir.mkdir(parents=True)
    return run.workdir


def test_a_program_is_compiled_by_its_first_run_before_the_others_start(tiny_run):
    first, second = tiny_run("a0", seed=0), tiny_run("a1", seed=1)
    other = tiny_run("b0", seed=0, batch_size=8)
    third = tiny_run("a2", seed=2, study_run="base_v2_adam")
    waiting = [second, other, third]
    assert runner.next_run([first, *waiting], []) is first
    assert runner.next_run(waiting, [first]) is other
    assert runner.next_run([second, third], [first, other]) is None
    (made(first) / "history.csv").touch()  # its first epoch has ended
    assert runner.next_run(waiting, [first]) is second
    assert runner.next_run([third], [first, second]) is third
    assert runner.next_run(waiting, []) is second  # the first one has failed
    assert runner.next_run([], []) is None


def test_nothing_starts_for_what_is_finished_or_has_other_settings(tiny_run):
    finished, other = tiny_run("finished"), tiny_run("other", seed=1)
    for run, stored in ((finished, finished), (other, tiny_run("other", seed=2))):
        run_folder.describe(made(run), stored.load(), ["a", "b"], "")
    (finished.workdir / "summary.json").write_text('{"epochs_run": 2}')
    failures = runner.train_all([finished, other])
    assert list(failures) == [other.workdir]
    assert "other settings (seed was 2 and is 1)" in failures[other.workdir]


@pytest.mark.slow
def test_two_at_once_overlap_and_give_the_histories_of_one_by_one(tiny_run, capfd):
    changes = [{"seed": 0}, {"batch_size": 8}, {"seed": 1}]
    one, two = (
        [tiny_run(f"jobs_{jobs}/{i}", **each) for i, each in enumerate(changes)] for jobs in (1, 2)
    )
    assert runner.train_all(one) == runner.train_all(two, jobs=2) == {}
    for a, b in zip(one, two, strict=True):
        assert without_seconds(a.workdir) == without_seconds(b.workdir)
    started, ended = (
        [(run.workdir / name).stat().st_mtime for run in two[:2]]
        for name in ("config.json", "summary.json")
    )
    assert max(started) < min(ended)
    lines = capfd.readouterr().out.splitlines()
    assert any(line.startswith("jobs_2/1: epoch 2/2") for line in lines)  # one can tell them apart


@pytest.mark.slow
def test_neither_an_error_nor_a_kill_stops_the_others(tiny_run):
    wrong = tiny_run("wrong", init_from="nowhere.h5")
    killed = tiny_run("killed", max_epochs=10_000, early_stopping=None)
    runs = [wrong, killed, tiny_run("a", seed=1), tiny_run("b", seed=2)]

    def kill():
        while not (killed.workdir / "history.csv").exists():
            time.sleep(0.1)
        _, pid, *_ = (killed.workdir / ".holder").read_text().split()
        os.kill(int(pid), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    failures = runner.train_all(runs, jobs=2)
    assert set(failures) == {wrong.workdir, killed.workdir}
    assert "init_from='nowhere.h5' is neither a file nor a run folder" in failures[wrong.workdir]
    assert "died (exit status -9), possibly out of memory" in failures[killed.workdir]
    assert all(run_folder.read_summary(run.workdir)["epochs_run"] == 2 for run in runs[2:])


@pytest.mark.slow
def test_what_another_process_trains_is_skipped(tiny_run, caplog):
    busy, other = tiny_run("busy"), tiny_run("other")
    caplog.set_level("INFO", "flowers_jax")
    with run_folder.lock(made(busy)):
        assert runner.train_all([busy, other]) == {}
        assert f"skipped: {busy.workdir} is being trained by process {os.getpid()}" in caplog.text
        assert not (busy.workdir / "config.json").exists()
    assert run_folder.read_summary(other.workdir)["epochs_run"] == 2
    assert runner.train_all([busy]) == {}
    assert run_folder.read_summary(busy.workdir)["epochs_run"] == 2
