"""A run as one file that other programs can use without this package.

The file takes uint8 RGB images `[batch, height, width, 3]` of any size and gives calibrated
probabilities; it resizes and scales as the run does. What it says of itself, `METADATA`, is a
property of an ONNX file, and otherwise a file in the zip archive that the file is (`.keras`) or
that follows its content, as the labels of LiteRT models do.
"""

import dataclasses
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, UInt8

from flowers_jax import calibration, keras_models, keras_weights, ops, step
from flowers_jax.data import decode, scaling
from flowers_jax.process.errors import UserError
from flowers_jax.run import Run
from flowers_jax.runs import files

if TYPE_CHECKING:
    import keras

METADATA = "flowers_jax.json"
CAFFE = (103.939, 116.779, 123.68)  # blue, green, red, as in `scaling`
LEAST = float(np.log(calibration.LEAST))  # of the log of a probability
SUFFIXES = {"stablehlo": ".stablehlo", "keras": ".keras", "onnx": ".onnx", "litert": ".tflite"}


def write(trained: Run, kind: str, path: Path) -> None:
    """Writes the run to `path`, in the format `kind` of `SUFFIXES`.

    Raises:
      UserError: this environment or this format cannot, or the file cannot be written.
    """
    config = trained.config
    temperature = trained.temperature or 1.0  # older runs have none
    metadata = {"class_names": trained.class_names, "temperature": temperature}
    metadata |= {"model": config.model, "image_size": config.image_size}
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"model{SUFFIXES[kind]}"
        if kind == "stablehlo":
            draft.write_bytes(_stablehlo(trained, temperature))
        else:
            _write_by_keras(trained, temperature, kind, draft)
        if kind == "onnx":
            import onnx

            model = onnx.load(draft)
            onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
            onnx.save(model, draft)
        else:
            with zipfile.ZipFile(draft, "a") as archive:
                archive.writestr(METADATA, json.dumps(metadata))
        files.write_bytes(path, draft.read_bytes())


def _stablehlo(trained: Run, temperature: float) -> bytearray:
    task, size = trained.trainer.task, trained.config.image_size
    task = dataclasses.replace(task, model=task.model.clone(ops=ops.PLAIN))
    variables = jax.device_get(trained.variables)
    nearest = trained.config.data.resize == "nearest"

    @jax.jit
    def probabilities(
        images: UInt8[Array, "batch height width 3"],
    ) -> Float[Array, "batch classes"]:
        if nearest:
            resized = _nearest(images, size)
        else:
            lengths = [jnp.asarray(length, jnp.float32) for length in images.shape[1:3]]
            as_float = images.astype(jnp.float32)
            resized = _bilinear(jnp, as_float, lengths, size, lambda x: x.astype(jnp.int32))
        pixels = scaling.scale(resized, task.input_scaling)
        logits = step.apply_heads(task, variables, pixels)[task.model.HEADS[0]]
        return jax.nn.softmax(jnp.maximum(jax.nn.log_softmax(logits), LEAST) / temperature)

    images = jax.ShapeDtypeStruct(export.symbolic_shape("batch, height, width, 3"), jnp.uint8)
    places = (jax, jax.experimental)  # of new and old JAX
    (enable_x64,) = [place.enable_x64 for place in places if hasattr(place, "enable_x64")][:1]
    with enable_x64(nearest):
        exported = export.export(probabilities, platforms=("cpu", "cuda", "tpu"))(images)
    return exported.serialize()


def _bilinear(k: Any, pixels: Any, lengths: Sequence[Any], size: int, whole: Any) -> Any:  # noqa: ANN401
    """As `decode` does, operation by operation: what it rounds is often half a grey level.

    Args:
      k: the functions of NumPy, in JAX or in Keras.
      pixels: float32 `[batch, height, width, 3]`.
      lengths: height and width, float32.
      size: of the result.
      whole: casts to int32.
    """
    middles = np.arange(size, dtype=np.float32) + np.float32(0.5)
    for axis in (2, 1):
        length = lengths[axis - 1]
        centres = _step(k, length, size) * middles - 0.5
        low = k.floor(centres)
        first, last = k.maximum(low, 0.0), k.minimum(k.ceil(centres), length - 1.0)
        weight = k.reshape(centres - low, (size,) + (1,) * (3 - axis))
        start, end = (k.take(pixels, whole(places), axis=axis) for places in (first, last))
        pixels = start + (end - start) * weight
    return k.round(pixels)


def _step(k: Any, length: Any, size: int) -> Any:  # noqa: ANN401
    """`length / size`; by a constant TensorFlow would multiply with the reciprocal, rounded."""
    return length / k.clip(length, size, size)


def _nearest(images: Any, size: int) -> Any:  # noqa: ANN401
    """Adds step to step in float64 as `decode` does: the rounding decides ties."""
    for axis in (1, 2):
        stride = jnp.asarray(images.shape[axis], jnp.float64) / size
        strides = jnp.full(size, stride)
        _, places = jax.lax.scan(lambda x, step: (x + step, x), stride / 2, strides)
        images = jnp.take(images, places.astype(jnp.int32), axis=axis)
    return images


def _write_by_keras(trained: Run, temperature: float, kind: str, path: Path) -> None:
    if kind == "litert" and trained.config.data.resize == "nearest":
        raise UserError(
            "LiteRT has no float64, which data.resize='nearest' needs to choose the pixels that "
            "the run was trained on; choose another --format."
        )
    decode.import_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise UserError("Keras exports from TensorFlow only: set KERAS_BACKEND=tensorflow.")
    try:
        if kind == "onnx":
            import onnx  # noqa: F401
            import tf2onnx  # noqa: F401
        model = _keras_model(trained, temperature)
        if kind == "keras":
            model.save(path)
        else:
            shape = [keras.InputSpec(shape=(None, None, None, 3), dtype="uint8", name="images")]
            model.export(path, format=kind, verbose=False, input_signature=shape)
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed; pip install 'flowers-jax[export]' (from a clone: "
            "pip install '.[export]')."
        ) from error


def _keras_model(trained: Run, temperature: float) -> "keras.Model":
    import keras

    config, size = trained.config, trained.config.image_size
    try:
        network = keras_models.create_keras_model(config.model, size, len(trained.class_names))
        keras_weights.to_keras(trained.variables, network)
    except (KeyError, UserError) as error:
        raise UserError(
            f"this network ({config.model}) has no twin in Keras, which only the study's own "
            "architectures have; --format=stablehlo writes any."
        ) from error
    main = network.outputs[0]
    main._keras_history.operation.activation = keras.activations.linear
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    pixels = _resized_by_keras(images, size, config.data.resize)
    # tf2onnx takes arrays for inputs, numbers for constants.
    channels = [pixels[..., c : c + 1] - mean for c, mean in zip((2, 1, 0), CAFFE, strict=True)]
    scaled = {  # as `scaling.SCALINGS`
        "none": lambda x: x,
        "0_1": lambda x: x / 255.0,
        "-1_1": lambda x: x / 127.5 - 1.0,
        "0_1_twice": lambda x: x / 255.0 / 255.0,
        "caffe": lambda x: keras.ops.concatenate(channels, axis=-1),
    }[config.input_scaling](pixels)
    logits = keras.Model(network.inputs, main)(scaled)
    logs = keras.ops.maximum(keras.ops.log_softmax(logits), LEAST)
    return keras.Model(images, keras.ops.softmax(logs / temperature))


def _resized_by_keras(images: Any, size: int, resize: str) -> Any:  # noqa: ANN401
    from keras import ops as k

    lines = images[0, :, 0, 0], images[0, 0, :, 0]
    kind = "float32" if resize == "bilinear" else "float64"
    lengths = [k.sum(k.ones_like(line, dtype=kind)) for line in lines]
    if resize == "bilinear":
        pixels = k.cast(images, "float32")
        return _bilinear(k, pixels, lengths, size, lambda x: k.cast(x, "int32"))
    for axis in (1, 2):  # as `_nearest`
        stride = _step(k, lengths[axis - 1], size)
        first, more = (k.reshape(x, (1,)) for x in (stride / 2, stride))
        strides = k.concatenate([first, k.tile(more, (size - 1,))])
        images = k.take(images, k.cast(k.cumsum(strides), "int32"), axis=axis)
    return k.cast(images, "float32")
