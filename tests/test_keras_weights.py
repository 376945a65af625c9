"""Files are written by Keras itself, and by hand in the layout of `keras.applications`."""

import h5py
import jax
import numpy as np
import pytest

from flowers_jax import keras_models, keras_weights
from flowers_jax.process.errors import UserError


def randomise(keras_model):
    rng = np.random.default_rng(0)
    for layer in keras_model.layers:
        layer.set_weights([rng.uniform(0.1, 1, w.shape) for w in layer.get_weights()])
    return keras_model


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module", params=["improvement_4", "googlenet"])
def named_model(request):
    """One with batch normalisation, and one with more than ten layers of a kind."""
    return request.param, randomise(keras_models.create_keras_model(request.param, 112))


@pytest.mark.parametrize("suffix", ["model.keras", "model.h5", "model.weights.h5"])
def test_a_file_holds_what_the_model_holds(named_model, tmp_path, suffix):
    name, model = named_model
    path = tmp_path / suffix
    (model.save_weights if "weights" in suffix else model.save)(path)
    assert_same(keras_weights.from_keras(path, name), keras_weights.from_keras(model, name))


def test_the_order_of_the_outputs_does_not_matter(tmp_path):
    import keras

    model = randomise(keras_models.create_keras_model("googlenet", 112))
    main, *auxiliary = model.outputs
    turned = keras.Model(model.inputs, [*auxiliary, main])
    assert [layer.name for layer in turned.layers] != [layer.name for layer in model.layers]
    turned.save(tmp_path / "model.h5")
    assert_same(
        keras_weights.from_keras(tmp_path / "model.h5", "googlenet"),
        keras_weights.from_keras(model, "googlenet"),
    )


def test_a_sequential_model_of_a_notebook(tmp_path):
    import keras
    from keras import layers as kl

    keras.layers.Conv2D(1, 1)  # numbers of automatic names do not begin at zero
    model = keras.Sequential(
        [
            keras.Input((150, 150, 3)),
            kl.Rescaling(1 / 255),
            kl.Conv2D(32, 3, activation="relu"),
            kl.MaxPooling2D(),
            kl.Conv2D(64, 3, activation="relu"),
            kl.MaxPooling2D(),
            kl.Dropout(0.25),
            kl.Flatten(),
            kl.Dense(128, activation="relu"),
            kl.Dropout(0.5),
            kl.Dense(3, activation="softmax"),
        ]
    )
    model.save(tmp_path / "modelo.h5")
    params = keras_weights.from_keras(tmp_path / "modelo.h5", "pilot_cnn")["params"]
    weights = [w for layer in model.layers for w in layer.get_weights()]
    ours = [params[n][w] for n in sorted(params) for w in ("kernel", "bias")]
    assert_same(ours, weights)


def test_vgg16_of_keras_applications(tmp_path):
    import keras

    model = keras.applications.VGG16(weights=None, classes=7, input_shape=(32, 32, 3))
    params = keras_weights.from_keras(model, "vgg16")["params"]
    assert_same(params["fc1"]["kernel"], model.get_layer("fc1").get_weights()[0])
    # The layout of the published file, which Keras 1 wrote: names of its own for the weights.
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{w}_1:0" for w in "Wb"][: len(layer.weights)]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value
    assert_same(keras_weights.from_keras(tmp_path / "weights.h5", "vgg16")["params"], params)


def test_a_mismatch_names_the_layer_and_both_shapes():
    model = keras_models.create_keras_model("improvement_2", 64)
    with pytest.raises(UserError, match=r"layer 'conv2d\w*' .* \(3, 3, 96, 96\), but layer Conv_3"):
        keras_weights.from_keras(model, "improvement_3")
    with pytest.raises(UserError, match="has 4 layers of the kind convolution, but base_cnn has 3"):
        keras_weights.from_keras(model, "base_cnn")
    variables = keras_weights.from_keras(
        keras_models.create_keras_model("improvement_3", 64), "improvement_3"
    )
    before = model.get_weights()
    with pytest.raises(UserError, match=r"layer Conv_3 .* \(5, 5, 96, 128\), but layer 'conv2d"):
        keras_weights.to_keras(variables, model)
    assert_same(model.get_weights(), before)


def test_what_is_no_weights_file_is_named(tmp_path):
    (tmp_path / "text.h5").write_text("no weights")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1, 2]
    for name, reason in (
        ("gone.h5", "No such file"),
        ("text.h5", "is not a weights or model file of Keras"),
        ("other.h5", "is not a weights or model file of Keras"),
    ):
        with pytest.raises(UserError, match=f"{name}:? {reason}"):
            keras_weights.from_keras(tmp_path / name, "base_cnn")
