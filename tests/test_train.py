import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import commands
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from support import make_batch, make_task

from flowers_jax import run, train
from flowers_jax.data.batches import Batches
from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import UserError
from flowers_jax.runs import history
from flowers_jax.trainer import Trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "image_size", "batch_size", "devices"),
    [
        # 45 training images: two full batches of 16 and a padded one.
        ("improvement_4", 64, 16, (2, 4, 8)),
        # Eight devices do not divide 20: each batch is padded to 24 samples.
        ("pilot_cnn", 16, 20, (8,)),
    ],
)
def test_any_number_of_devices_gives_the_history_of_one(
    image_folder, tmp_path, monkeypatch, model, image_size, batch_size, devices
):
    # More threads than XLA takes by itself: with one per core, devices that wait for an all-reduce
    # can hold all of them.
    monkeypatch.setenv("NPROC", "32")
    settings = {
        "model": model,
        "image_size": image_size,
        "batch_size": batch_size,
        "max_epochs": 1,
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.01,
        "data.dir": image_folder,
        "data.validation_fraction": 0.25,
        "class_weights": "(0.5, 1.0, 3.0)",
    }
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    histories = []
    for count in (1, *devices):
        workdir = tmp_path / str(count)
        monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={count}")
        done = commands.run("main", "--config=configs/common.py", f"--workdir={workdir}", *flags)
        assert done.returncode == 0, done.stderr
        summary = json.loads((workdir / "summary.json").read_text())
        assert summary["device"].startswith(f"{count} x")
        # The run is read back on the one device of this process.
        assert run.load(workdir).predict([image_folder / "red" / "0.png"]).shape == (1, 3)
        histories.append(history.read(workdir)[0])
    for found in histories[1:]:
        for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert found[column] == pytest.approx(histories[0][column], rel=1e-5)


def trained_in_float64(num_devices):
    """Parameters and running statistics after batches of 6, 6 and 3 samples."""
    devices = np.array(jax.devices()[:num_devices])
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    optimizer = {"name": "sgd", "learning_rate": 0.01}
    task, state = make_task("improvement_4", 64, dtype="float64", optimizer=optimizer)
    trainer = Trainer(task, 64, mesh)
    to_float64 = {np.dtype(np.float32): np.float64}
    state = jax.tree.map(lambda x: np.asarray(x, to_float64.get(x.dtype)), state)
    state, metrics = trainer.replicate(state), trainer.zero_metrics()
    images = make_batch(15, 64)
    files = ImageFolder(("",) * 15, images["label"], ())
    for batch in Batches(files, images["image"], np.arange(15), 6, mesh).epoch():
        state, metrics = trainer.train_step(state, metrics, batch, trainer.keys(0, 1))
    assert float(metrics.count) == 15
    return jax.device_get(state.variables)


# In float32 statistics of so few samples amplify rounding until the loss shows it.
@pytest.mark.slow
def test_eight_devices_take_the_steps_of_one_where_some_have_padding_only(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "true")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")
    monkeypatch.setenv("NPROC", "32")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        one, eight = process.map(trained_in_float64, (1, 8))
    assert_close = partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12)
    jax.tree.map(assert_close, eight, one)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("stop", r"not finite at step 2, in epoch 1 \(seed 0, learning rate 1e\+30, gradient norm"),
        ("skip_step", r"not finite at step 4, in epoch 2 .* all steps of the epoch"),
    ],
)
def test_a_run_ends_where_the_loss_is_not_finite(tiny_config, tmp_path, caplog, rule, message):
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.learning_rate = 1e30
    tiny_config.on_non_finite = rule
    with pytest.raises(UserError, match=message):
        train.train_and_evaluate(tiny_config, tmp_path)
    assert ("2 steps of the epoch are skipped" in caplog.text) == (rule == "skip_step")


def test_what_is_not_finite_can_be_ignored(tiny_config, tmp_path):
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.learning_rate = 1e30
    tiny_config.on_non_finite = "ignore"
    tiny_config.max_epochs = 1
    train.train_and_evaluate(tiny_config, tmp_path)
    assert np.isnan(history.read(tmp_path)[0]["loss"])
