import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowers_jax import models, results
from flowers_jax.errors import UserError
from flowers_jax.models import layers

PARAMETERS = [
    ("pilot_cnn", 150, 10_636_997),
    ("base_cnn", 150, 4_828_997),
    ("base_cnn_v2", 150, 4_828_997),
    ("improvement_1", 150, 1_175_493),
    ("improvement_2", 150, 158_309),
    ("improvement_3", 150, 382_757),
    ("improvement_4", 150, 373_253),
    ("alexnet", 150, 29_993_029),
    ("vgg16", 150, 65_075_013),
    ("vgg16", 224, 134_281_029),
    ("googlenet", 224, 8_483_647),
]


def shapes(name, size):
    model = models.create_model(name)
    return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


@pytest.mark.parametrize(("name", "size", "count"), PARAMETERS)
def test_parameter_counts_of_the_study(name, size, count):
    _, variables = shapes(name, size)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


REFERENCE_NAMES = {
    "pilot": "pilot_cnn",
    "base": "base_cnn",
    "base_v2": "base_cnn_v2",
    "imp1": "improvement_1",
    "imp2": "improvement_2",
    "imp3": "improvement_3",
    "imp4": "improvement_4",
    "alexnet": "alexnet",
    "vgg16": "vgg16",
    "googlenet": "googlenet",
}


def keras_model(layer_list, size):
    """The reference file's architecture, built with Keras: an independent reading of it."""
    import keras
    from keras import layers as kl

    aux = []

    def inception(x, spec):
        def conv(features, kernel, x):
            return kl.Conv2D(features, kernel, padding="same", activation="relu")(x)

        branches = [
            conv(spec["1x1"], 1, x),
            conv(spec["3x3"], 3, conv(spec["3x3_reduce"], 1, x)),
            conv(spec["5x5"], 5, conv(spec["5x5_reduce"], 1, x)),
            conv(spec["pool_proj"], 1, kl.MaxPooling2D(3, 1, padding="same")(x)),
        ]
        return kl.Concatenate()(branches)

    def apply(x, spec):
        padding = spec.get("padding", "valid")
        if "conv" in spec:
            return kl.Conv2D(
                spec["conv"], spec["kernel"], spec["stride"], padding, activation="relu"
            )(x)
        if "max_pool" in spec:
            return kl.MaxPooling2D(spec["max_pool"], spec["stride"], padding)(x)
        if "average_pool" in spec:
            return kl.AveragePooling2D(spec["average_pool"], spec["stride"], padding)(x)
        if "dropout" in spec:
            return kl.Dropout(spec["dropout"])(x)
        if "dense" in spec:
            activation = None if spec["activation"] == "softmax" else spec["activation"]
            return kl.Dense(spec["dense"], activation=activation)(x)
        if "inception" in spec:
            return inception(x, spec)
        if "auxiliary_head" in spec:
            y = x
            for inner in spec["layers"]:
                y = apply(y, inner)
            aux.append(y)
            return x
        name = next(iter(spec))
        return {
            "flatten": kl.Flatten,
            "batch_norm": kl.BatchNormalization,
            "global_average_pool": kl.GlobalAveragePooling2D,
        }[name]()(x)

    x = inputs = keras.Input((size, size, 3))
    for spec in layer_list:
        x = apply(x, spec)
    return keras.Model(inputs, [x, *aux])


def layers_with_weights(model):
    return [layer for layer in model.layers if layer.get_weights()]


@pytest.mark.parametrize("reference", [*REFERENCE_NAMES])
def test_layer_shapes_are_those_of_the_reference_file(reference):
    architectures = results.reference()["architectures"]
    size = 224 if reference == "googlenet" else 150
    theirs = keras_model(architectures[reference], size)
    _, variables = shapes(REFERENCE_NAMES[reference], size)
    kernels = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key == "kernel"
    ]
    expected = [
        tuple(layer.kernel.shape)
        for layer in layers_with_weights(theirs)
        if hasattr(layer, "kernel")
    ]
    assert sorted(kernels) == sorted(expected)
    assert theirs.count_params() == sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", models.MODELS)
def test_logits_are_float32_in_any_computation_dtype(name):
    model = models.create_model(name, num_classes=7, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 150, 150, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_googlenet_gives_three_heads_in_training_and_on_request():
    model, variables = shapes("googlenet", 224)
    assert models.head_names(model) == ("main", "aux1", "aux2")
    assert {"main", "aux1", "aux2"} <= variables["params"].keys()
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)

    def outputs(**arguments):
        rngs = {"dropout": jax.random.key(0)}
        return jax.eval_shape(
            lambda v, x: model.apply(v, x, rngs=rngs, **arguments), variables, images
        )

    assert [head.shape for head in outputs(train=True)] == [(2, 5)] * 3
    assert [head.shape for head in outputs(train=False, all_heads=True)] == [(2, 5)] * 3
    assert outputs(train=False).shape == (2, 5)


def test_batch_norm_sees_only_the_samples_of_the_mask():
    import keras

    class Norm(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, x, train, mask=None):
            return layers.batch_norm(train, mask, dtype=jnp.float32)(x)

    x = np.random.default_rng(0).normal(3, 2, (6, 5, 5, 4)).astype(np.float32)
    padded = np.concatenate([x, np.full((2, 5, 5, 4), 1e3, np.float32)])
    mask = jnp.arange(8) < 6
    norm = Norm()
    variables = norm.init(jax.random.key(0), x, train=False)
    ours, updated = norm.apply(variables, padded, train=True, mask=mask, mutable=["batch_stats"])
    theirs = keras.layers.BatchNormalization()
    expected = theirs(x, training=True)
    np.testing.assert_allclose(ours[:6], expected, atol=1e-5)
    stats = updated["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(stats["mean"], theirs.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], theirs.moving_variance, rtol=1e-5)
    inference = norm.apply({**variables, **updated}, x, train=False)
    np.testing.assert_allclose(inference, theirs(x, training=False), atol=1e-5)


def test_an_unknown_model_is_named():
    with pytest.raises(UserError, match="no model 'vgg19'; choose one of pilot_cnn"):
        models.create_model("vgg19")


def test_the_table_counts_the_parameters():
    assert "683,845" in models.table(models.create_model("base_cnn"), 64)
