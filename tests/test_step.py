import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import KEYS, make_batch, make_task

from configs import common
from flowers_jax import models, step, trainer
from flowers_jax.data import augment
from flowers_jax.step import Metrics


def zero(task):
    return Metrics.zero(task.model.HEADS)


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 3.0, 0.2, 1.5)])
def test_a_padded_batch_is_the_batch_without_its_padding(weights):
    # SGD: Adam would make a whole step of a gradient that is zero but for rounding.
    task, state = make_task("improvement_4", 64, optimizer={"name": "sgd", "learning_rate": 0.01})
    task = dataclasses.replace(task, class_weights=weights)
    sums = zero(task)
    take_step = jax.jit(step.train_step, static_argnums=0)
    exact = take_step(task, state, sums, make_batch(6, 64), KEYS)
    padded = take_step(task, state, sums, make_batch(6, 64, padding=2), KEYS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), padded, exact)
    assert float(padded[1].count) == 6
    assert not np.allclose(
        jax.tree.leaves(exact[0].batch_stats)[0], jax.tree.leaves(state.batch_stats)[0]
    )


def test_metrics_are_means_over_the_samples_not_over_the_batches():
    task, state = make_task("pilot_cnn", 16)
    batch = make_batch(11, 16)
    images = jnp.asarray(batch["image"]) / 255.0
    logits = np.asarray(task.model.apply(state.variables, images), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected_loss = -log_softmax[np.arange(11), batch["label"]].mean()
    sums = zero(task)
    for rows in (slice(0, 8), slice(8, 11)):
        part = {key: value[rows] for key, value in batch.items()}
        sums = step.eval_step(task, state.variables, sums, part)
    means = sums.averages("val_")
    assert means["val_loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert means["val_accuracy"] == pytest.approx((logits.argmax(1) == batch["label"]).mean())


def test_class_weights_count_in_the_loss_of_training_only():
    task, state = make_task("improvement_4", 64)
    weights, batch = np.array([0.5, 1.0, 3.0, 0.2, 1.5]), make_batch(6, 64)
    weighted = dataclasses.replace(task, class_weights=tuple(weights.tolist()))
    take_step = jax.jit(step.train_step, static_argnums=0)
    logits = task.model.apply(
        state.variables,
        jnp.asarray(batch["image"]) / 255.0,
        train=True,
        mask=batch["mask"],
        mutable=["batch_stats"],
    )[0]
    of_samples = -jax.nn.log_softmax(logits)[np.arange(6), batch["label"]]
    _, sums = take_step(weighted, state, zero(task), batch, KEYS)
    expected = np.mean(of_samples * weights[batch["label"]])
    assert sums.averages()["loss"] == pytest.approx(float(expected), rel=1e-4)
    evaluate = jax.jit(step.eval_step, static_argnums=0)
    with_weights, without = (
        evaluate(t, state.variables, zero(t), batch).averages() for t in (weighted, task)
    )
    assert with_weights == without


def test_several_views_are_averaged_where_nothing_is_trained():
    task, state = make_task("pilot_cnn", 16)
    flips = {"horizontal_flip": True, "vertical_flip": True, "zoom": 0.1}
    both = dataclasses.replace(task, views=augment.views(flips))
    batch = make_batch(5, 16)
    pixels = batch["image"] / np.float32(255)
    views = (pixels, pixels[:, ::-1], pixels[:, :, ::-1], pixels[:, ::-1, ::-1])
    expected = np.mean([jax.nn.softmax(task.model.apply(state.variables, v)) for v in views], 0)
    predicted = step.predict_step(both, state.variables, batch["image"])
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    averages = step.eval_step(both, state.variables, zero(task), batch).averages()
    of_label = expected[np.arange(5), batch["label"]]
    assert averages["loss"] == pytest.approx(-np.log(of_label).mean(), rel=1e-4)
    assert augment.views(flips | {"vertical_flip": False}) == ((), (2,))
    assert augment.views(None) == ((),)


def test_every_step_has_its_own_dropout_and_every_epoch_its_own_warp():
    task, state = make_task("pilot_cnn", 16)
    sums, batch = zero(task), make_batch(8, 16)
    take_step = jax.jit(step.train_step, static_argnums=0)
    loss = {
        s: float(take_step(task, state.replace(step=s), sums, batch, KEYS)[1].sums["loss"])
        for s in (0, 1)
    }
    assert loss[0] != loss[1]
    assert (
        float(take_step(task, state.replace(step=0), sums, batch, KEYS)[1].sums["loss"]) == loss[0]
    )

    task, state = make_task("improvement_4", 64)  # no dropout: what differs is the warp
    warp = augment.transforms({"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True})
    task = dataclasses.replace(task, augmentations=warp)
    sums, batch = zero(task), make_batch(4, 64)
    losses = [
        float(
            take_step(task, state, sums, batch, {**KEYS, "augment": jax.random.key(k)})[1].sums[
                "loss"
            ]
        )
        for k in (2, 2, 3)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.slow
def test_the_loss_of_googlenet_is_the_weighted_sum_of_its_heads():
    task, state = make_task("googlenet", 112, aux_weight=0.3)
    take_step = jax.jit(step.eval_step, static_argnums=0)
    sums = take_step(task, state.variables, zero(task), make_batch(4, 112))
    means = sums.averages()
    assert means["loss"] == pytest.approx(
        means["main_loss"] + 0.3 * (means["aux1_loss"] + means["aux2_loss"]), rel=1e-5
    )
    assert means["accuracy"] == means["main_accuracy"]
    assert len({means["main_loss"], means["aux1_loss"], means["aux2_loss"]}) == 3


@pytest.mark.parametrize("rule", ["skip_step", "stop"])
def test_a_step_that_is_not_finite_is_told_and_can_be_skipped(rule):
    task, state = make_task("improvement_4", 64, on_non_finite=rule)
    take_step = jax.jit(step.train_step, static_argnums=0)
    batch = make_batch(4, 64)
    state, sums = take_step(task, state, zero(task), batch, KEYS)
    assert float(sums.non_finite_steps) == 0
    broken = state.replace(params=jax.tree.map(lambda x: x.at[...].set(jnp.inf), state.params))
    after, sums_after = take_step(task, broken, sums, batch, KEYS)
    after, sums_after = take_step(task, after, sums_after, batch, KEYS)
    assert (sums_after.non_finite_steps, sums_after.non_finite_step) == (2, 2)
    assert not np.isfinite(sums_after.non_finite_gradient_norm)
    assert int(after.step) == 3
    if rule == "skip_step":
        same = jax.tree.map(np.array_equal, after.replace(step=0), broken.replace(step=0))
        assert jax.tree.all(same)
        assert sums_after.averages() == sums.averages()
    else:
        assert np.isnan(sums_after.averages()["loss"])


def test_the_norm_of_a_gradient_is_told_where_only_the_loss_is_not_finite():
    task, state = make_task("pilot_cnn", 16, optimizer={"name": "sgd", "learning_rate": 1.0})
    endless = dataclasses.replace(task, loss=lambda *batch: task.loss(*batch) + jnp.inf)
    take_step = jax.jit(step.train_step, static_argnums=0)
    after, sums = take_step(endless, state, zero(task), make_batch(4, 16), KEYS)
    # With this rate SGD's step is the gradient.
    moved = jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), after.params, state.params)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(moved)))
    assert float(sums.non_finite_steps) == 1
    assert float(sums.non_finite_gradient_norm) == pytest.approx(norm, rel=1e-3)


def lowered_for_a_gpu(model, deterministic):
    """A training step's program, which needs no GPU until it is compiled."""
    config = common.get_config()
    config.update(model=model, input_scaling="0_1", deterministic=deterministic)
    task = trainer.create_task(config, 5)
    size = 112 if model in ("alexnet", "googlenet") else 64
    create = jax.jit(step.create_state, static_argnums=(0, 1))
    state = jax.eval_shape(create, task, size, jax.random.key(0))
    take_step = jax.jit(step.train_step, static_argnums=0)
    traced = take_step.trace(task, state, zero(task), make_batch(2, size), KEYS)
    return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize("model", models.MODELS)
def test_a_deterministic_step_has_nothing_that_a_gpu_cannot_repeat(model):
    # XLA refuses to compile this operation, the gradient of a pool, under
    # xla_gpu_exclude_nondeterministic_ops.
    operation = "select_and_scatter"
    assert operation in lowered_for_a_gpu(model, deterministic=False)
    assert operation not in lowered_for_a_gpu(model, deterministic=True)
