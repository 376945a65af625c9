"""Twenty steps of training in Keras and here, from the same weights on the same batches.

In float64: in float32, AlexNet's batch normalisation and ReLUs turn rounding into 1 % of the loss
within five steps.
"""

import flax
import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict
from support import KEYS, keras_optimizer, without_dropout

from configs import common
from flowers_jax import keras_models, keras_weights, step, trainer
from flowers_jax.step import Metrics

STEPS = 20
# Powers of two, which are exact in float32. Adam moves every weight by the rate in each step, which
# AlexNet bears only if it is small.
RATES = {"adam": 2**-17, "adadelta": 2**-3, "adagrad": 2**-13, "sgd": 2**-10}


@pytest.fixture
def float64():
    import keras

    def set_floats(name):
        jax.config.update("jax_enable_x64", name == "float64")
        keras.config.set_floatx(name)
        # Of new layers; Keras takes it from the line above only before it has built its first.
        keras.config.set_dtype_policy(name)

    set_floats("float64")
    yield
    set_floats("float32")


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("model", "size", "optimizer"),
    [
        *((*model, name) for model in (("base_cnn", 64), ("alexnet", 99)) for name in RATES),
        # With this schedule the means of AlexNet's batch normalisation part by 1e-4 of themselves.
        ("base_cnn", 64, "scheduled adam"),
        ("base_cnn", 64, "weighted adam"),
    ],
)
def test_losses_and_weights_are_those_of_keras(model, size, optimizer):
    import keras

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 5, (4, 8)).astype(np.int32)

    config = common.get_config()
    config.model, config.input_scaling, config.dtype = model, "none", "float64"
    config.optimizer.name = optimizer.split()[-1]
    config.optimizer.learning_rate = rate = RATES[config.optimizer.name]
    if optimizer == "scheduled adam":
        config.optimizer.schedule = "piecewise"
        config.optimizer.schedule_args = ConfigDict({"boundaries": (5, 10), "scales": (0.5, 0.5)})
        # Keras counts a boundary to the values before it.
        values = [rate, rate / 2, rate / 4]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay([4, 9], values)
    weights = None
    if optimizer == "weighted adam":
        weights = dict(enumerate((0.5, 1.0, 4.0, 0.25, 1.5)))
        config.class_weights = tuple(weights.values())
    task = trainer.create_task(config, 5, counts=np.ones(5, int))
    state = jax.jit(step.create_state, static_argnums=(0, 1))(task, size, jax.random.key(0))
    state = jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state)

    theirs = keras_models.create_keras_model(model, size)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    keras_weights.to_keras(state.variables, theirs)
    theirs.compile(keras_optimizer(config.optimizer.name, rate), "sparse_categorical_crossentropy")

    start = flax.traverse_util.flatten_dict(jax.device_get(state.variables))
    take_step = jax.jit(step.train_step, static_argnums=0)
    for i in range(STEPS):
        image, label = images[i % 4], labels[i % 4]
        batch = {"image": image, "label": label, "index": np.arange(8), "mask": np.ones(8, bool)}
        with nn.intercept_methods(without_dropout):
            state, sums = take_step(task, state, Metrics.zero(("main",)), batch, KEYS)
        expected = theirs.train_on_batch(image, label, class_weight=weights)
        assert sums.averages()["loss"] == pytest.approx(float(expected), rel=1e-3), i
    ours = flax.traverse_util.flatten_dict(state.variables)
    expected = flax.traverse_util.flatten_dict(keras_weights.from_keras(theirs, model))
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(ours[key], value, atol=1e-4)
        # The tolerance alone would let a parameter pass that hardly moves.
        movement = np.linalg.norm(value - start[key])
        assert np.linalg.norm(ours[key] - value) <= 0.02 * movement, key
