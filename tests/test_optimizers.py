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
    """A matrix of parameters after steps along gradients from 1e-6 to 1, by both."""
    import keras

    optimizer = optimizers.create_optimizer(config)
    # A kernel: weight decay leaves vectors out.
    start = np.linspace(-1, 1, 30, dtype=np.float32).reshape(6, 5)
    params = jnp.asarray(start)
    state = optimizer.init(params)
    variable = keras.Variable(start)
    theirs.build([variable])
    rng = np.random.default_rng(0)
    scale = np.logspace(-6, 0, 30).reshape(6, 5)
    for _ in range(steps):
        gradient = (rng.normal(0.3, 1, (6, 5)) * scale).astype(np.float32)
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
        ({"name": "adamw", "weight_decay": 0.1, "beta_1": 0.5},) * 2,
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


def test_biases_and_normalisation_do_not_decay():
    optimizer = optimizers.create_optimizer(settings(name="adamw", weight_decay=0.5))
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    nothing = {name: jnp.zeros_like(leaf) for name, leaf in params.items()}
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.001 * 0.5, rtol=1e-6)
    assert not updates["bias"].any() and not updates["scale"].any()


def test_a_schedule_counts_epochs_where_its_argument_says_so():
    for kind, in_epochs, in_steps in (
        ("cosine", {"decay_epochs": 5}, {"decay_steps": 35}),
        (
            "warmup_cosine",
            {"warmup_epochs": 0.5, "decay_epochs": 4},
            {"warmup_steps": 4, "decay_steps": 28},
        ),
        (
            "piecewise",
            {"boundary_epochs": (1, 2), "scales": (0.1, 0.1)},
            {"boundaries": (7, 14), "scales": (0.1, 0.1)},
        ),
    ):
        schedules = [
            optimizers.learning_rate_schedule(
                settings(schedule=kind, schedule_args=ConfigDict(arguments)), steps_per_epoch=7
            )
            for arguments in (in_epochs, in_steps)
        ]
        rates = np.array([[float(schedule(step)) for step in range(40)] for schedule in schedules])
        np.testing.assert_array_equal(*rates)
        assert len(np.unique(rates)) > 2


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
