"""The command, as a user runs it."""

from functools import partial

import commands
import flax
import jax
import numpy as np
import pytest

from flowers_jax import keras_models, keras_weights, run
from flowers_jax.train import train_and_evaluate

convert = partial(commands.run, "scripts/convert_weights.py")


def test_there_and_back_again(tmp_path):
    theirs = keras_models.create_keras_model("pilot_cnn", 16, num_classes=3)
    theirs.save(tmp_path / "modelo.h5")
    expected = keras_weights.from_keras(theirs, "pilot_cnn")
    done = convert("--model=pilot_cnn", tmp_path / "modelo.h5", tmp_path / "w.msgpack")
    assert done.returncode == 0, done.stderr
    restored = flax.serialization.msgpack_restore((tmp_path / "w.msgpack").read_bytes())
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    done = convert(
        "--model=pilot_cnn", "--image_size=16", tmp_path / "w.msgpack", tmp_path / "m.keras"
    )
    assert done.returncode == 0, done.stderr
    back = keras_weights.from_keras(tmp_path / "m.keras", "pilot_cnn")
    jax.tree.map(np.testing.assert_array_equal, back, expected)


def test_a_run_becomes_a_keras_model_that_predicts_the_same(tiny_config, tmp_path):
    import keras

    tiny_config.max_epochs = 1
    train_and_evaluate(tiny_config, tmp_path / "run")
    done = convert(tmp_path / "run", tmp_path / "modelo.keras")
    assert done.returncode == 0, done.stderr
    trained = run.load(tmp_path / "run")
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    ours = jax.nn.softmax(trained.trainer.task.model.apply(trained.variables, images))
    theirs = keras.models.load_model(tmp_path / "modelo.keras")(images)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.h5",), "give a source and a target"),
        (("a.h5", "b.msgpack"), "which architecture is a.h5"),
        (("--model=vgg19", "a.h5", "b.msgpack"), "no model 'vgg19'"),
        (("--model=vgg16", "a.h5", "b.msgpack"), "a.h5: No such file"),
        (("--model=vgg16", "a.h5", "nowhere/b.msgpack"), "no folder nowhere"),
        (("--model=vgg16", "a.h5", "setup.cfg"), "setup.cfg exists already"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, message):
    done = convert(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
