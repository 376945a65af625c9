"""Exported files, read back by their own runtimes."""

import dataclasses
import json
import sys
import zipfile
from functools import partial

import commands
import jax
import numpy as np
import pytest

from flowers_jax import export, trainer
from flowers_jax.calibration import calibrate
from flowers_jax.data import decode
from flowers_jax.process.errors import UserError

TEMPERATURE = 1.7


def changed(trained, **changes):
    """The run with other settings and a temperature."""
    config = trained.config.copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    summary = trained.summary | {"temperature": TEMPERATURE}
    task = dataclasses.replace(trained.trainer.task, input_scaling=config.input_scaling)
    trainer = type(trained.trainer)(task, config.image_size)
    return dataclasses.replace(trained, config=config, summary=summary, trainer=trainer)


@pytest.fixture(scope="module")
def pictures():
    """Smooth pictures of many sizes: also where 'nearest' meets ties."""
    from PIL import Image

    rng = np.random.default_rng(1)
    sizes = [(24, 40), (40, 24), (16, 16), (7, 9), (31, 97), (200, 150), (56, 56)]
    coarse = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in sizes]
    return [np.asarray(c.resize(s)) for c, s in zip(coarse, sizes, strict=True)]


def read_stablehlo(path):
    call = jax.export.deserialize(bytearray(path.read_bytes())).call
    return lambda images: np.asarray(call(images))


def read_keras(path):
    import keras

    model = keras.models.load_model(path)
    return lambda images: model(images).numpy()


def read_onnx(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


def read_litert(path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images):
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


READERS = {"stablehlo": read_stablehlo, "keras": read_keras, "onnx": read_onnx}
READERS |= {"litert": read_litert}


def read_metadata(kind, path):
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return json.loads(session.get_modelmeta().custom_metadata_map[export.METADATA])
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(export.METADATA))


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    ("resize", "scaling"), [("bilinear", "caffe"), ("bilinear", "-1_1"), ("nearest", "0_1_twice")]
)
def test_a_file_gives_the_calibrated_probabilities_of_the_run(
    small_run, pictures, kind, resize, scaling, tmp_path
):
    run = changed(small_run, **{"data.resize": resize, "input_scaling": scaling})
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    if (kind, resize) == ("litert", "nearest"):
        with pytest.raises(UserError, match="LiteRT has no float64"):
            export.write(run, kind, path)
        return
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    export.write(run, kind, path)
    predict = READERS[kind](path)
    for picture in pictures:
        images = np.stack([picture, picture[::-1]])
        expected = calibrate(run.predict(images), TEMPERATURE)
        np.testing.assert_allclose(predict(images), expected, atol=1e-4)
    metadata = read_metadata(kind, path)
    assert metadata["class_names"] == ["bright", "dark"]
    assert metadata["temperature"] == TEMPERATURE


@pytest.mark.parametrize(
    ("kind", "resize"), [("onnx", "bilinear"), ("onnx", "nearest"), ("litert", "bilinear")]
)
def test_tensorflow_does_not_round_what_it_resizes_otherwise(kind, resize, tmp_path):
    import keras

    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    size, rng = 55, np.random.default_rng(0)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    model = keras.Model(images, export._resized_by_keras(images, size, resize))
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    shape = [keras.InputSpec(shape=(None, None, None, 3), dtype="uint8", name="images")]
    model.export(path, format=kind, verbose=False, input_signature=shape)
    predict = READERS[kind](path)
    for height, width in ((224, 159), (159, 240), (333, 500), (11, 33)):
        pixels = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        expected = decode.resize_pixels(pixels, size, resize)
        np.testing.assert_array_equal(predict(pixels), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), [("alexnet", 67), ("googlenet", 99)])
def test_batch_normalisation_and_auxiliary_heads_are_exported(
    small_run, pictures, model, size, tmp_path
):
    run = changed(small_run, model=model, image_size=size, aux_weight=1.0)
    steps = trainer.Trainer(trainer.create_task(run.config, 2), size)
    rng, variables = np.random.default_rng(0), steps.create_state(0).variables
    random = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), variables["batch_stats"])
    variables = variables | {"batch_stats": jax.tree.map(np.float32, random)}
    # An untrained network tells images apart by little.
    run = dataclasses.replace(
        run, trainer=steps, variables=variables, summary={"temperature": 0.05}
    )
    path = tmp_path / "model.keras"
    export.write(run, "keras", path)
    images = np.stack([pictures[0], 255 - pictures[0]])
    expected = calibrate(run.predict(images), 0.05)
    assert abs(expected[0] - expected[1]).max() > 2e-4
    np.testing.assert_allclose(READERS["keras"](path)(images), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["stablehlo", "keras"])
def test_probabilities_that_are_rounded_to_0_are_calibrated_alike(
    small_run, pictures, kind, tmp_path
):
    large = jax.tree.map(lambda x: 30 * x, small_run.variables)
    run = dataclasses.replace(small_run, variables=large, summary={"temperature": 20.0})
    images = np.stack([pictures[0], 255 - pictures[0]])
    assert (run.predict(images) == 0).any()
    path = tmp_path / f"model{export.SUFFIXES[kind]}"
    export.write(run, kind, path)
    expected = calibrate(run.predict(images), 20.0)
    np.testing.assert_allclose(READERS[kind](path)(images), expected, atol=1e-4)


def test_what_a_format_cannot_hold_is_said_in_a_sentence(small_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"tf2onnx is not installed; pip install 'flowers-jax\[exp"):
        export.write(small_run, "onnx", tmp_path / "model.onnx")
    trained = dataclasses.replace(small_run, class_names=("a", "b", "c"))
    with pytest.raises(UserError, match=r"no twin in Keras.*--format=stablehlo writes any"):
        export.write(trained, "keras", tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())


def test_the_command(small_run, tmp_path):
    run = partial(commands.run, "scripts/export.py")
    done = run(small_run.workdir, "--format=stablehlo", f"--output={tmp_path / 'a.stablehlo'}")
    assert done.returncode == 0, done.stderr
    assert read_metadata("stablehlo", tmp_path / "a.stablehlo")["class_names"]
    for arguments, message in (
        ((small_run.workdir, "--format=keras", "--output=setup.cfg"), "setup.cfg exists already"),
        ((tmp_path, "--format=keras"), "is not a run folder"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
