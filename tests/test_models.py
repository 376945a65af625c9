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
    """The reference file's architecture, built with Keras: an independent reading of it.

    Returns:
      The model (GoogLeNet's with three outputs) and its layers with weights by kind, in the order
      in which the file lists them.
    """
    import keras
    from keras import layers as kl

    ordered = {"Conv2D": [], "Dense": [], "BatchNormalization": []}

    def build(layer, x):
        if type(layer).__name__ in ordered:
            ordered[type(layer).__name__].append(layer)
        return layer(x)

    def same_conv(features, kernel, x):
        return build(kl.Conv2D(features, kernel, padding="same", activation="relu"), x)

    def inception(x, spec):
        one = same_conv(spec["1x1"], 1, x)
        three = same_conv(spec["3x3"], 3, same_conv(spec["3x3_reduce"], 1, x))
        five = same_conv(spec["5x5"], 5, same_conv(spec["5x5_reduce"], 1, x))
        pooled = same_conv(spec["pool_proj"], 1, kl.MaxPooling2D(3, 1, padding="same")(x))
        return kl.Concatenate()([one, three, five, pooled])

    def apply(x, spec):
        padding = spec.get("padding", "valid")
        if "conv" in spec:
            shape = spec["conv"], spec["kernel"], spec["stride"], padding
            return build(kl.Conv2D(*shape, activation="relu"), x)
        if "max_pool" in spec:
            return kl.MaxPooling2D(spec["max_pool"], spec["stride"], padding)(x)
        if "average_pool" in spec:
            return kl.AveragePooling2D(spec["average_pool"], spec["stride"], padding)(x)
        if "dropout" in spec:
            return kl.Dropout(spec["dropout"])(x)
        if "dense" in spec:
            activation = None if spec["activation"] == "softmax" else spec["activation"]
            return build(kl.Dense(spec["dense"], activation=activation), x)
        if "inception" in spec:
            return inception(x, spec)
        kinds = {
            "flatten": kl.Flatten,
            "batch_norm": kl.BatchNormalization,
            "global_average_pool": kl.GlobalAveragePooling2D,
        }
        return build(kinds[next(iter(spec))](), x)

    x = inputs = keras.Input((size, size, 3))
    heads = []
    for spec in layer_list:
        if "auxiliary_head" in spec:
            y = x
            for inner in spec["layers"]:
                y = apply(y, inner)
            heads.append(y)
        else:
            x = apply(x, spec)
    return keras.Model(inputs, [x, *heads]), ordered


# Where the order of a forward pass is not that of the names.
GOOGLENET_ORDER = (
    "conv1 conv2_reduce conv2 inception_3a inception_3b inception_4a aux1 inception_4b "
    "inception_4c inception_4d aux2 inception_4e inception_5a inception_5b main "
    "conv_1x1 reduce_3x3 conv_3x3 reduce_5x5 conv_5x5 pool_proj Conv_0 Dense_0 Dense_1"
).split()


def flax_layers(model, variables):
    """Our layers with weights by kind, as `keras_model` lists Keras', each as Keras' weights."""
    ordered = {"Conv2D": [], "Dense": [], "BatchNormalization": []}
    order = GOOGLENET_ORDER.index if models.head_names(model) else None

    def visit(params, stats):
        for name in sorted(params, key=order):
            child = params[name]
            if "scale" in child:
                moving = [stats[name]["mean"], stats[name]["var"]]
                ordered["BatchNormalization"].append([child["scale"], child["bias"], *moving])
            elif "kernel" in child:
                kind = "Conv2D" if child["kernel"].ndim == 4 else "Dense"
                ordered[kind].append([child["kernel"], child["bias"]])
            else:
                visit(child, stats.get(name, {}))

    visit(variables["params"], variables.get("batch_stats", {}))
    return ordered


def randomised(variables):
    """Variables of which none has the value it would have by accident."""

    def draw(path, leaf):
        rng = np.random.default_rng(sum(map(ord, str(path))))
        name = path[-1].key
        if name == "kernel":  # He's scale keeps the signal alive to the last layer
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(np.float32)
        low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.mark.parametrize("reference", [*REFERENCE_NAMES])
def test_logits_are_those_of_the_reference_file_in_keras(reference):
    size = 224 if reference == "googlenet" else 150
    theirs, layers_by_kind = keras_model(results.reference()["architectures"][reference], size)
    model, variables = shapes(REFERENCE_NAMES[reference], size)
    variables = randomised(variables)
    ours_by_kind = flax_layers(model, variables)
    for kind, keras_layers in layers_by_kind.items():
        for layer, weights in zip(keras_layers, ours_by_kind[kind], strict=True):
            layer.set_weights(weights)
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    heads = {"all_heads": True} if models.head_names(model) else {}
    ours = jax.jit(lambda v, x: model.apply(v, x, **heads))(variables, images)
    expected = theirs(images, training=False)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


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
