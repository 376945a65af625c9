"""Grad-CAM beside one written in Keras, with the same weights."""

import dataclasses

import jax
import numpy as np
import pytest
from support import make_task
from test_models import FULL, SMALL, randomised, with_logits

from flowers_jax import gradcam, keras_models, keras_weights, models
from flowers_jax.data import scaling
from flowers_jax.process.errors import UserError

# The places differ by class of network; GoogLeNet compiles too long for the quick tests.
NAMES = ("pilot_cnn", "base_cnn", "improvement_1", "improvement_3", "improvement_4")
CASES = [
    *((name, SMALL.get(name, 64)) for name in (*NAMES, "alexnet", "vgg16")),
    # At full size no class of these random base CNNs has any heat.
    *(
        pytest.param(name, size, marks=pytest.mark.slow)
        for name, size, _ in FULL
        if name not in ("base_cnn", "base_cnn_v2")
    ),
]

grad_cam = jax.jit(gradcam.grad_cam, static_argnums=(0, 1))
embed = jax.jit(gradcam.embed, static_argnums=0)


def keras_layer(model, index):
    """The output of a convolution with its ReLU, or of the batch normalisation that follows it."""
    import keras

    places = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
    places = places or [
        layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    places = places or [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return places[index].output


def keras_grad_cam(model, output, images, classes):
    """As the paper writes it, image by image."""
    import keras
    import tensorflow as tf

    logits = model.outputs[0]
    both = keras.Model(model.inputs, [output, logits])
    heats = []
    for image, k in zip(images, classes, strict=True):
        with tf.GradientTape() as tape:
            maps, scores = both([image[None]], training=False)
            score = scores[0, k]
        gradient = tape.gradient(score, maps)[0].numpy()
        maps = maps[0].numpy()
        heat = sum(gradient[..., c].mean() * maps[..., c] for c in range(maps.shape[-1]))
        heat = np.maximum(heat, 0)
        heats.append(heat / heat.max() if heat.max() > 0 else heat)
    return np.stack(heats)


def task_and_batch(name, size):
    task, state = make_task(name, size)
    variables = randomised(jax.device_get(state.variables))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    return task, variables, {"image": images, "label": np.arange(5)}


def in_keras(name, size, variables):
    theirs = with_logits(keras_models.create_keras_model(name, size))
    keras_weights.to_keras({k: v for k, v in variables.items() if k != "batch_stats" or v}, theirs)
    return theirs


@pytest.mark.parametrize(("name", "size"), CASES)
def test_the_heat_is_that_of_an_implementation_in_keras(name, size):
    task, variables, batch = task_and_batch(name, size)
    ours = grad_cam(task, "features", variables, batch)
    theirs = in_keras(name, size, variables)
    inputs = np.asarray(scaling.scale(batch["image"], task.input_scaling))
    expected = keras_grad_cam(theirs, keras_layer(theirs, -1), inputs, batch["label"])
    assert expected.max() == 1
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_another_layer_gives_its_own_heat():
    task, variables, batch = task_and_batch("improvement_4", 64)
    ours = grad_cam(task, "BatchNorm_1", variables, batch)
    theirs = in_keras("improvement_4", 64, variables)
    inputs = np.asarray(scaling.scale(batch["image"], task.input_scaling))
    expected = keras_grad_cam(theirs, keras_layer(theirs, 1), inputs, batch["label"])
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_where_nothing_speaks_for_a_class_the_heat_is_zero():
    task, variables, batch = task_and_batch("pilot_cnn", 20)
    variables["params"]["Dense_1"]["kernel"][:] = 0
    assert not np.any(grad_cam(task, "features", variables, batch))


def test_layers_have_height_and_width_and_lead_to_the_classifier():
    layers = gradcam.layers(models.create_model("googlenet"), 112)
    assert layers["features"] == layers["inception_5b"] == (2, 2, 1024)
    assert "inception_3a/conv_1x1" in layers
    assert not [name for name in layers if name.startswith(("aux", "main"))]
    for missing in ("main", "aux1/Conv_0", "convolution"):
        with pytest.raises(UserError, match=f"no layer '{missing}' with height and width"):
            gradcam.require_layer(models.create_model("googlenet"), 112, missing)


def test_an_embedding_is_the_mean_of_the_last_maps():
    task, variables, batch = task_and_batch("improvement_4", 64)
    theirs = in_keras("improvement_4", 64, variables)
    import keras

    inputs = np.asarray(scaling.scale(batch["image"], task.input_scaling))
    maps = keras.Model(theirs.inputs, keras_layer(theirs, -1))([inputs]).numpy()
    expected = maps.mean(axis=(1, 2))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(task, variables, batch), expected, atol=1e-5)


def test_an_overlay_is_red_where_the_heat_is_and_as_large_as_the_picture():
    from PIL import Image

    heat = np.array([[1.0, 0.0], [0.0, 0.0]])
    explanation = gradcam.Explanation("a", "b", heat, Image.new("RGB", (300, 200), "black"))
    overlay = np.asarray(explanation.overlay()).astype(int)
    assert overlay.shape == (200, 300, 3)
    red, blue = overlay[10, 10], overlay[-10, -10]
    assert red[0] > 2 * red[2] and blue[2] > blue[1]
    large = dataclasses.replace(explanation, image=Image.new("RGB", (3000, 2000)))
    assert large.overlay().size == (1024, 683)
