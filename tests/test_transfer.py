import logging
import shutil

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import KEYS, make_task

from configs import vgg16_imagenet_finetune
from flowers_jax import keras_models, keras_weights, models, run, step, transfer
from flowers_jax.data import scaling
from flowers_jax.process.errors import UserError
from flowers_jax.step import Metrics
from flowers_jax.train import train_and_evaluate


def variables(name, size, num_classes=5):
    model = models.create_model(name, num_classes)
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))


def initialise(ours, path, size, num_classes):
    """The pilot's variables with those of a file."""
    model = models.create_model("pilot_cnn", num_classes)
    classifier = models.shapes(model, size).classifier
    return transfer.initialise(ours, transfer.load(path, "pilot_cnn"), classifier, str(path))


@pytest.fixture
def keras_file(tmp_path):
    """The pilot of ten classes, as a student might have saved it."""
    path = tmp_path / "modelo.h5"
    keras_models.create_keras_model("pilot_cnn", 16, num_classes=10).save(path)
    return path


def test_a_classifier_of_other_classes_begins_anew_and_the_rest_is_taken_over(keras_file):
    ours = variables("pilot_cnn", 16)
    loaded = keras_weights.from_keras(keras_file, "pilot_cnn")["params"]
    result = initialise(ours, keras_file, 16, 5)["params"]
    for layer in ("Conv_0", "Conv_1", "Dense_0"):
        jax.tree.map(np.testing.assert_array_equal, result[layer], loaded[layer])
    jax.tree.map(np.testing.assert_array_equal, result["Dense_1"], ours["params"]["Dense_1"])

    same = initialise(variables("pilot_cnn", 16, 10), keras_file, 16, 10)
    jax.tree.map(np.testing.assert_array_equal, same["params"], loaded)


def test_weights_for_another_image_size_are_refused(keras_file):
    with pytest.raises(UserError, match=r"layer Dense_0 of .*\(256, 128\).*\(2304, 128\).*size"):
        initialise(variables("pilot_cnn", 32), keras_file, 32, 5)


def test_a_run_starts_from_a_file_and_keeps_its_frozen_layers(keras_file, tiny_config, tmp_path):
    tiny_config.init_from = str(keras_file)
    tiny_config.frozen = ("Conv_*",)
    train_and_evaluate(tiny_config, tmp_path / "run")
    after = run.load(tmp_path / "run").variables
    before = keras_weights.from_keras(keras_file, "pilot_cnn")["params"]
    for layer in ("Conv_0", "Conv_1"):
        jax.tree.map(np.testing.assert_array_equal, after["params"][layer], before[layer])
    assert not np.allclose(after["params"]["Dense_0"]["kernel"], before["Dense_0"]["kernel"])


def test_a_run_starts_from_another_run_of_other_classes(
    tiny_config, image_folder, tmp_path, caplog
):
    tiny_config.max_epochs = 1
    train_and_evaluate(tiny_config, tmp_path / "first")
    shutil.rmtree(image_folder / "green")
    tiny_config.init_from, tiny_config.frozen = str(tmp_path / "first"), ("Conv_*",)
    with caplog.at_level(logging.INFO):
        train_and_evaluate(tiny_config, tmp_path / "second")
    assert "the classifier Dense_1 begins anew" in caplog.text
    before, after = (run.load(tmp_path / name).variables["params"] for name in ("first", "second"))
    for layer in ("Conv_0", "Conv_1"):
        jax.tree.map(np.testing.assert_array_equal, after[layer], before[layer])
    assert after["Dense_1"]["kernel"].shape == (128, 2)
    moved = np.abs(after["Dense_0"]["kernel"] - before["Dense_0"]["kernel"]).max()
    assert 0 < moved < 0.05  # a few steps from there
    tiny_config.model = "base_cnn"
    with pytest.raises(UserError, match="is a run of pilot_cnn, and model='base_cnn'"):
        train_and_evaluate(tiny_config, tmp_path / "third")


def test_a_frozen_batch_normalisation_is_that_of_keras():
    """One step of SGD with the first half of a network frozen, in both."""
    import keras

    frozen = ("Conv_0", "BatchNorm_0", "Conv_1", "BatchNorm_1")
    sgd = {"name": "sgd", "learning_rate": 0.1}
    task, state = make_task("improvement_4", 64, frozen=frozen, optimizer=sgd)
    theirs = keras_models.create_keras_model("improvement_4", 64)
    keras_weights.to_keras(state.variables, theirs)
    trained = {"conv": 0, "norm": 0}
    for layer in theirs.layers:
        for kind, cls in (("conv", keras.layers.Conv2D), ("norm", keras.layers.BatchNormalization)):
            if isinstance(layer, cls):
                layer.trainable = trained[kind] >= 2
                trained[kind] += 1
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    label = np.arange(8) % 5
    theirs.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    theirs.train_on_batch(images / 255.0, label)
    batch = {"image": images, "label": label, "index": np.arange(8), "mask": np.ones(8, bool)}
    take_step = jax.jit(step.train_step, static_argnums=0)
    after, _ = take_step(task, state, Metrics.zero(("main",)), batch, KEYS)
    expected = keras_weights.from_keras(theirs, "improvement_4")
    ours = flax.traverse_util.flatten_dict(after.variables)
    start = flax.traverse_util.flatten_dict(state.variables)
    for key, value in flax.traverse_util.flatten_dict(expected).items():
        np.testing.assert_allclose(ours[key], value, atol=1e-5)
        assert np.array_equal(ours[key], start[key]) == (key[1] in frozen), key


def test_names_of_layers_to_freeze():
    assert transfer.is_frozen(("inception_3a", "conv_1x1"), ["inception_*"])
    assert transfer.is_frozen(("inception_3a", "conv_1x1"), ["inception_3a/conv_1x1"])
    assert not transfer.is_frozen(("inception_3a", "conv_1x1"), ["conv_1x1", "inception_3"])
    layers = models.shapes(models.create_model("vgg16"), 32).layers
    assert transfer.matches(layers, "block1_*")
    assert transfer.matches(layers, "predictions")
    assert not transfer.matches(layers, "block6_*")


def test_the_scaling_of_imagenet_is_preprocess_input():
    import keras

    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    expected = keras.applications.vgg16.preprocess_input(pixels.copy())
    np.testing.assert_allclose(scaling.scale(jnp.asarray(pixels), "caffe"), expected, atol=1e-4)


@pytest.mark.slow
def test_fine_tuning_vgg16_from_a_file_of_the_published_layout(tmp_path, image_folder):
    import keras

    path = tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels.h5"
    published = keras.applications.VGG16(weights=None, classes=11, input_shape=(32, 32, 3))
    published.save_weights(tmp_path / "published.weights.h5")
    (tmp_path / "published.weights.h5").rename(path)
    config = vgg16_imagenet_finetune.get_config()
    config.init_from, config.image_size, config.max_epochs = str(path), 32, 1
    config.data.source, config.data.dir = "folder", str(image_folder)
    summary = train_and_evaluate(config, tmp_path / "run")
    assert summary["epochs_run"] == 1
    assert summary["class_names"] == ["blue", "green", "red"]
