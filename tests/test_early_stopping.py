import math

import numpy as np
import pytest

from flowers_jax import reference
from flowers_jax.early_stopping import EarlyStopping

LOGGED = [run for run in reference.study()["runs"] if "measured" in run]


def replay(stopping, values):
    for epoch, value in enumerate(values, start=1):
        stopping = stopping.update(epoch, value)
        if stopping.should_stop:
            break
    return stopping, epoch


@pytest.mark.parametrize("run", [r for r in LOGGED if r["early_stopping"]], ids=lambda r: r["id"])
def test_the_logged_runs_stop_where_the_study_stopped(run):
    rule, measured = run["early_stopping"], run["measured"]
    stopping = EarlyStopping(rule["mode"], rule["patience"], rule["min_delta"])
    stopping, epoch = replay(stopping, measured["history"][rule["monitor"]])
    assert epoch == measured["epochs_run"]
    assert stopping.should_stop == measured["stopped_early"]
    assert stopping.best_epoch == measured["best_epoch"]
    assert stopping.best_value == measured["best_val_accuracy"]


def keras_epochs(values, mode, patience, min_delta):
    """Epochs run and the best one, by Keras' callback."""
    import keras

    class Model:
        stop_training = False

        def get_weights(self):
            return []

        def set_weights(self, weights):
            pass

    callback = keras.callbacks.EarlyStopping(
        "value", min_delta, patience, mode=mode, restore_best_weights=True
    )
    callback._model = Model()
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"value": value})
        if callback.model.stop_training:
            break
    return epoch + 1, callback.best_epoch + 1


def test_random_traces_stop_where_keras_stops():
    rng = np.random.default_rng(0)
    for _ in range(500):
        values = rng.integers(0, 12, 40) / 10  # ties are common
        # Keras 3 takes a NaN in the first epoch for the best value and never leaves it; before, and
        # here, it counts as no improvement. So the first value is a number.
        values[1:][rng.random(39) < 0.05] = math.nan
        mode = str(rng.choice(["min", "max"]))
        patience = int(rng.integers(1, 8))
        min_delta = float(rng.choice([0.0, 0.1, 0.25]))
        stopping, epoch = replay(EarlyStopping(mode, patience, min_delta), values.tolist())
        assert (epoch, stopping.best_epoch) == keras_epochs(values, mode, patience, min_delta)


def test_nan_is_never_better_but_a_run_of_nan_has_a_best_epoch():
    stopping, epoch = replay(EarlyStopping("max", 3), [math.nan] * 9)
    assert (epoch, stopping.best_epoch, stopping.best_value) == (3, 1, None)
    stopping, _ = replay(EarlyStopping("max", 3), [math.nan, 0.2])
    assert (stopping.best_epoch, stopping.best_value) == (2, 0.2)
