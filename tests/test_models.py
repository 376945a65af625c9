from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from support import without_dropout

from flowers_jax import keras_models, keras_weights, models, ops
from flowers_jax.models import layers
from flowers_jax.process.errors import UserError

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


@pytest.mark.versions
@pytest.mark.parametrize(("name", "size", "count"), PARAMETERS)
def test_parameter_counts_of_the_study(name, size, count):
    _, variables = shapes(name, size)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == count


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


def with_logits(keras_model):
    """The Keras model with its softmax and dropout taken off."""
    import keras

    for layer in keras_model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif (
            isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.softmax
        ):
            layer.activation = keras.activations.linear
    return keras_model


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def assert_logits_agree(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


# The sizes of the study with the kernels of the study, and small ones with XLA's own, which compile
# in a third of the time; `test_convolution.py` and `test_pooling.py` compare the two.
FULL = [(name, 224 if name == "googlenet" else 150, ops.FAST) for name in models.MODELS]
SMALL = {"pilot_cnn": 20, "alexnet": 99, "vgg16": 32, "googlenet": 112}
CASES = [
    *((name, SMALL.get(name, 64), ops.PLAIN) for name in models.MODELS),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in FULL),
]


@pytest.mark.parametrize(("name", "size", "kernels"), CASES)
def test_logits_and_statistics_are_those_of_the_reference_file_in_keras(name, size, kernels):
    theirs = with_logits(keras_models.create_keras_model(name, size))
    model, variables = shapes(name, size)
    model = model.clone(ops=kernels)
    variables = randomised(variables)
    keras_weights.to_keras(variables, theirs)
    jax.tree.map(np.testing.assert_array_equal, keras_weights.from_keras(theirs, name), variables)
    images = np.random.default_rng(0).uniform(-1, 1, (3, size, size, 3)).astype(np.float32)

    def ours(variables, images, **options):
        logits = model.apply(variables, images, method="heads", **options)
        logits, updated = logits if "mutable" in options else (logits, {})
        return [logits[head] for head in model.HEADS], updated

    logits, _ = jax.jit(ours)(variables, images)
    assert_logits_agree(logits, theirs(images, training=False))

    @jax.jit
    def training(variables, images, mask):
        with nn.intercept_methods(without_dropout):
            return ours(variables, images, train=True, mask=mask, mutable=["batch_stats"])

    for count in (3, 2):  # a full batch and a partial one
        keras_weights.to_keras(variables, theirs)
        logits, updated = training(variables, images, jnp.arange(3) < count)
        expected = theirs(images[:count], training=True)
        assert_logits_agree([head[:count] for head in logits], expected)
        found = {"params": variables["params"], **updated}
        jax.tree.map(assert_close, found, keras_weights.from_keras(theirs, name))


@pytest.mark.versions
@pytest.mark.parametrize("name", models.MODELS)
def test_logits_are_float32_in_any_computation_dtype(name):
    model = models.create_model(name, num_classes=7, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 150, 150, 3), jnp.float32)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


@pytest.mark.versions
def test_googlenet_gives_three_heads_in_training():
    model, variables = shapes("googlenet", 224)
    assert model.HEADS == ("main", "aux1", "aux2")
    assert {"main", "aux1", "aux2"} <= variables["params"].keys()
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)

    def outputs(**arguments):
        rngs = {"dropout": jax.random.key(0)}
        return jax.eval_shape(
            lambda v, x: model.apply(v, x, rngs=rngs, **arguments), variables, images
        )

    assert [head.shape for head in outputs(train=True)] == [(2, 5)] * 3
    assert {head: x.shape for head, x in outputs(method="heads").items()} == dict.fromkeys(
        model.HEADS, (2, 5)
    )
    assert outputs(train=False).shape == (2, 5)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_shapes_tell_layers_and_classifiers(name):
    model, variables = shapes(name, 224)
    found = models.shapes(model, 224)
    assert jax.tree.map(lambda leaf: leaf.shape, found.variables) == jax.tree.map(
        lambda leaf: leaf.shape, variables
    )
    widths = {
        flax.traverse_util.flatten_dict(variables)[path].shape[-1] for path in found.classifier
    }
    assert widths == {5}
    assert len(found.classifier) == 2 * len(model.HEADS)
    assert len(found.layers) == len(set(found.layers)) > 3


def test_arguments_of_a_model_reach_the_module():
    model = models.create_model("base_cnn", last_kernel=5, global_pool=True)
    kernels = models.shapes(model, 64).variables["params"]
    assert kernels["Conv_2"]["kernel"].shape == (5, 5, 64, 128)
    assert kernels["Dense_0"]["kernel"].shape == (128, 128)
    with pytest.raises(UserError, match="alexnet takes the arguments none"):
        models.create_model("alexnet", last_kernel=5)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_kernels_are_those_that_are_passed_in(name):
    used = set()

    def note(kind, function):
        def noting(*arguments, **options):
            used.add(kind)
            return function(*arguments, **options)

        return noting

    kernels = ops.Ops(
        note("conv", ops.PLAIN.conv_general_dilated), note("pool", ops.PLAIN.max_pool)
    )
    model = models.create_model(name).clone(ops=kernels)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    jax.eval_shape(model.init, jax.random.key(0), images)
    assert used == {"conv", "pool"}


@pytest.mark.versions
def test_batch_norm_sees_only_the_samples_of_the_mask():
    import keras

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, train, mask=None):
            return layers.batch_norm(train=train, mask=mask, dtype=jnp.float32)(x)

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


# GoogLeNet's auxiliary heads need 112 px; the others are cheap to compile at these sizes.
LEAST = {"pilot_cnn": 20, "alexnet": 99, "vgg16": 32, "googlenet": 112}


@pytest.mark.parametrize("name", [*models.MODELS])
def test_every_model_fulfils_the_contract_in_shape(name):
    assert models.defects(name) == []
    for dtype in (jnp.float32, jnp.bfloat16):
        model = models.create_model(name, num_classes=3, dtype=dtype).clone(ops=ops.PLAIN)
        shapes = models.shapes(model, LEAST.get(name, 64))  # raises unless the logits are right
        kinds = {leaf.dtype.name for leaf in jax.tree.leaves(shapes.variables)}
        assert kinds == {"float32"}
        assert shapes.classifier
        inner = jax.make_jaxpr(partial(model.apply, method="heads"))(
            shapes.variables, jnp.zeros((1, *[LEAST.get(name, 64)] * 2, 3))
        )
        convolutions = {
            equation.outvars[0].aval.dtype.name
            for equation in inner.eqns
            if equation.primitive.name == "conv_general_dilated"
        }
        assert convolutions == {jnp.dtype(dtype).name}


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("pilot_cnn", "improvement_4")
        else pytest.param(name, marks=[pytest.mark.slow])
        for name in models.MODELS
    ],
)
def test_padding_changes_nothing_and_gradients_are_finite(name):
    size = LEAST.get(name, 64)
    model = models.create_model(name, num_classes=3).clone(ops=ops.PLAIN)
    variables = randomised(models.shapes(model, size).variables)
    variables = {"batch_stats": {}, **variables}
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (4, size, size, 3)), jnp.float32)
    other = images.at[2:].set(5.0)
    mask = jnp.arange(4) < 2

    @jax.jit
    def loss_and_gradients(variables, images):
        def loss(params):
            with nn.intercept_methods(without_dropout):
                logits, updated = model.apply(
                    {**variables, "params": params},
                    images,
                    train=True,
                    mask=mask,
                    method="heads",
                    mutable=["batch_stats"],
                )
            real = {head: jnp.where(mask[:, None], values, 0) for head, values in logits.items()}
            return sum(jnp.sum(values**2) for values in real.values()), (real, updated)

        return jax.grad(loss, has_aux=True)(variables["params"])

    for a, b in zip(
        jax.tree.leaves(loss_and_gradients(variables, images)),
        jax.tree.leaves(loss_and_gradients(variables, other)),
        strict=True,
    ):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_batch_normalisation_masks_features_as_it_masks_images():
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, mask=None):
            return layers.batch_norm(train=True, mask=mask, dtype=jnp.float32, momentum=0.5)(x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    x = x.at[3].set(1e3)
    mask = jnp.arange(4) < 3
    scales = {"scale": jnp.ones(6), "bias": jnp.zeros(6)}
    start = {"mean": jnp.zeros(6), "var": jnp.ones(6)}
    variables = {"params": {"BatchNorm_0": scales}, "batch_stats": {"BatchNorm_0": start}}
    for images in (x, x[:, None, None, :]):
        out, updated = Norm().apply(variables, images, mask, mutable=["batch_stats"])
        mean, var = x[:3].mean(axis=0), x[:3].var(axis=0)
        expected = (x[:3] - mean) / np.sqrt(var + layers.BATCH_NORM_EPSILON)
        np.testing.assert_allclose(out.reshape(4, 6)[:3], expected, rtol=1e-4, atol=1e-5)
        statistics = updated["batch_stats"]["BatchNorm_0"]
        np.testing.assert_allclose(statistics["mean"], 0.5 * mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(statistics["var"], 0.5 + 0.5 * var, rtol=1e-5)
