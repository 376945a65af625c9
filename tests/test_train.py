import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from flowers_jax import results, train
from flowers_jax.data.augment import Augmentation
from flowers_jax.errors import UserError

KEYS = {"dropout": jax.random.key(1), "augment": jax.random.key(2)}


def make(model, image_size, **changes):
    config = common.get_config()
    config.model = model
    config.input_scaling = "0_1"
    config.update(changes)
    task = train.create_task(config, 5)
    create = jax.jit(train.create_state, static_argnums=(0, 1))
    return task, create(task, image_size, jax.random.key(0))


def make_batch(n, size, padding=0):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    label = (np.arange(n) % 5).astype(np.int32)
    if padding:
        image = np.concatenate([image, np.full((padding, size, size, 3), 255, np.uint8)])
        label = np.concatenate([label, np.zeros(padding, np.int32)])
    mask = np.arange(n + padding) < n
    return {"image": image, "label": label, "index": np.arange(n + padding), "mask": mask}


def test_a_padded_batch_is_the_batch_without_its_padding():
    # SGD: Adam would make a whole step of a gradient that is zero but for rounding.
    task, state = make("improvement_4", 64, optimizer={"name": "sgd", "learning_rate": 0.01})
    sums = train.zero_sums(task.model)
    step = jax.jit(train.train_step, static_argnums=0)
    exact = step(task, state, sums, make_batch(6, 64), KEYS)
    padded = step(task, state, sums, make_batch(6, 64, padding=2), KEYS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), padded, exact)
    assert float(padded[1]["count"]) == 6
    assert not np.allclose(
        jax.tree.leaves(exact[0].batch_stats)[0], jax.tree.leaves(state.batch_stats)[0]
    )


def test_metrics_are_means_over_the_samples_not_over_the_batches():
    task, state = make("pilot_cnn", 16)
    batch = make_batch(11, 16)
    images = jnp.asarray(batch["image"]) / 255.0
    logits = np.asarray(task.model.apply(state.variables, images), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected_loss = -log_softmax[np.arange(11), batch["label"]].mean()
    sums = train.zero_sums(task.model)
    for rows in (slice(0, 8), slice(8, 11)):
        part = {key: value[rows] for key, value in batch.items()}
        sums = train.eval_step(task, state.variables, sums, part)
    means = train.means(sums, "val_")
    assert means["val_loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert means["val_accuracy"] == pytest.approx((logits.argmax(1) == batch["label"]).mean())


def test_every_step_has_its_own_dropout_and_every_epoch_its_own_warp():
    task, state = make("pilot_cnn", 16)
    sums, batch = train.zero_sums(task.model), make_batch(8, 16)
    step = jax.jit(train.train_step, static_argnums=0)
    loss = {
        s: float(step(task, state.replace(step=s), sums, batch, KEYS)[1]["loss"]) for s in (0, 1)
    }
    assert loss[0] != loss[1]
    assert float(step(task, state.replace(step=0), sums, batch, KEYS)[1]["loss"]) == loss[0]

    task, state = make("improvement_4", 64)  # no dropout: what differs is the warp
    task = dataclasses.replace(task, augmentation=Augmentation(15.0, 0.1, True, False))
    sums, batch = train.zero_sums(task.model), make_batch(4, 64)
    losses = [
        float(step(task, state, sums, batch, {**KEYS, "augment": jax.random.key(k)})[1]["loss"])
        for k in (2, 2, 3)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_the_loss_of_googlenet_is_the_weighted_sum_of_its_heads():
    task, state = make("googlenet", 112, aux_weight=0.3)
    step = jax.jit(train.eval_step, static_argnums=0)
    sums = step(task, state.variables, train.zero_sums(task.model), make_batch(4, 112))
    means = train.means(sums)
    assert means["loss"] == pytest.approx(
        means["main_loss"] + 0.3 * (means["aux1_loss"] + means["aux2_loss"]), rel=1e-5
    )
    assert means["accuracy"] == means["main_accuracy"]
    assert len({means["main_loss"], means["aux1_loss"], means["aux2_loss"]}) == 3


DEVICES_SCRIPT = """
import json, sys
from pathlib import Path
from configs import common
from flowers_jax.train import train_and_evaluate
config = common.get_config()
config.model, config.image_size, config.max_epochs = "improvement_4", 64, 1
config.batch_size, config.optimizer.name, config.optimizer.learning_rate = 16, "sgd", 0.01
config.data.source, config.data.dir = "folder", sys.argv[1]
config.data.validation_fraction = 0.25
train_and_evaluate(config, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_any_number_of_devices_gives_the_history_of_one(image_folder, tmp_path):
    # 45 training images: two full batches of 16 and a padded one.
    histories = []
    for devices in (1, 2, 4, 8):
        workdir = tmp_path / str(devices)
        subprocess.run(
            [sys.executable, "-c", DEVICES_SCRIPT, str(image_folder), str(workdir)],
            env={
                **os.environ,
                "JAX_NUM_CPU_DEVICES": str(devices),
                # More threads than XLA takes by itself: with one per core, devices that wait for an
                # all-reduce can hold all of them.
                "NPROC": "32",
            },
            check=True,
            timeout=300,
        )
        summary = json.loads((workdir / "summary.json").read_text())
        assert summary["device"].startswith(f"{devices} x")
        histories.append(np.genfromtxt(workdir / "history.csv", delimiter=",", names=True))
    for column in ("loss", "accuracy", "val_loss", "val_accuracy"):
        for history in histories[1:]:
            np.testing.assert_allclose(histories[0][column], history[column], rtol=1e-5)


@pytest.mark.parametrize("rule", ["skip_step", "stop"])
def test_a_step_that_is_not_finite_is_told_and_can_be_skipped(rule):
    task, state = make("improvement_4", 64, on_non_finite=rule)
    step = jax.jit(train.train_step, static_argnums=0)
    batch = make_batch(4, 64)
    state, sums = step(task, state, train.zero_sums(task.model), batch, KEYS)
    assert float(sums["non_finite_steps"]) == 0
    broken = state.replace(params=jax.tree.map(lambda x: x.at[...].set(jnp.inf), state.params))
    after, sums_after = step(task, broken, sums, batch, KEYS)
    after, sums_after = step(task, after, sums_after, batch, KEYS)
    assert [float(sums_after[name]) for name in train.NON_FINITE[:2]] == [2, 2]
    assert not np.isfinite(sums_after["non_finite_gradient_norm"])
    assert int(after.step) == 3
    if rule == "skip_step":
        same = jax.tree.map(np.array_equal, after.replace(step=0), broken.replace(step=0))
        assert jax.tree.all(same)
        assert train.means(sums_after) == train.means(sums)
    else:
        assert np.isnan(train.means(sums_after)["loss"])


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
    assert np.isnan(results.read_history(tmp_path)[0]["loss"])
