import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from support import keras_optimizer

from configs import common
from flowers_jax import optimizers
from flowers_jax.process.errors import UserError


def settings(**changes):
    config = common.get_config().optimizer
    config.update(changes)
    return config


def ours_and_keras(config, theirs, steps=200):
    """A vector of parameters after steps along gradients from 1e-6 to 1, by both."""
    import keras

    optimizer = optimizers.create_optimizer(config)
    start = np.linspace(-1, 1, 30, dtype=np.float32)
    params = jnp.asarray(start)
    state = optimizer.init(params)
    variable = keras.Variable(start)
    theirs.build([variable])
    rng = np.random.default_rng(0)
    scale = np.logspace(-6, 0, 30)
    for _ in range(steps):
        gradient = (rng.normal(0.3, 1, 30) * scale).astype(np.float32)
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        theirs.apply([gradient], [variable])
    return np.asarray(params) - start, np.asarray(variable) - start


@pytest.mark.versions
@pytest.mark.parametrize("rate", [0.001, 0.1])
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_the_default_arguments_and_the_rule_are_those_of_keras(name, rate):
    ours, theirs = ours_and_keras(
        settings(name=name, learning_rate=rate), keras_optimizer(name, rate)
    )
    # Both round the same sums differently: compared with the movement of each parameter, plus the
    # rounding of a parameter of size 1.
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=3e-6)


def test_the_arguments_reach_the_rule():
    for changes, arguments in (
        ({"name": "adam", "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},) * 2,
        ({"name": "adadelta", "rho": 0.5, "epsilon": 1e-3},) * 2,
        ({"name": "adagrad", "initial_accumulator_value": 0.5, "epsilon": 1e-3},) * 2,
        ({"name": "sgd", "momentum": 0.9},) * 2,
    ):
        arguments = {k: v for k, v in arguments.items() if k != "name"}
        ours, theirs = ours_and_keras(
            settings(learning_rate=0.05, **changes),
            keras_optimizer(changes["name"], 0.05, **arguments),
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=3e-6)


def test_momentum_under_a_schedule_is_that_of_keras():
    import keras

    config = settings(
        name="sgd",
        learning_rate=0.1,
        momentum=0.9,
        schedule="piecewise",
        schedule_args=ConfigDict({"boundaries": (10, 50), "scales": (0.5, 0.1)}),
    )
    # Keras counts a boundary to the values before it.
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([9, 49], [0.1, 0.05, 0.005])
    ours, theirs = ours_and_keras(config, keras_optimizer("sgd", schedule, momentum=0.9))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=3e-6)


def test_a_warmup_schedule_peaks_at_the_learning_rate():
    config = settings(
        learning_rate=0.2,
        schedule="warmup_cosine",
        schedule_args=ConfigDict({"warmup_steps": 10, "decay_steps": 100}),
    )
    schedule = optimizers.learning_rate_schedule(config)
    assert float(schedule(0)) == 0
    assert float(schedule(10)) == pytest.approx(0.2)
    assert float(schedule(100)) == pytest.approx(0, abs=1e-6)


def test_a_cosine_is_that_of_keras():
    import keras

    config = settings(
        learning_rate=0.2,
        schedule="cosine",
        schedule_args=ConfigDict({"decay_steps": 50, "alpha": 0.1}),
    )
    schedule = optimizers.learning_rate_schedule(config)
    theirs = keras.optimizers.schedules.CosineDecay(0.2, 50, alpha=0.1)
    for step in (0, 1, 25, 49, 50, 99):
        assert float(schedule(step)) == pytest.approx(float(theirs(step)), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "lion"}, "no optimizer 'lion'; choose one of adam"),
        ({"schedule": "linear"}, "no schedule 'linear'; choose one of constant, cosine"),
        ({"schedule": "cosine"}, "schedule_args of cosine: .*decay_steps"),
    ],
)
def test_what_does_not_exist_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        optimizers.create_optimizer(settings(**changes))
