"""The study's architectures as Keras models, built from the reference file layer by layer.

The tests compare this package's models with them, and weights are written to them. Keras is
imported where it is used; the extra `tf` brings it.
"""

from typing import TYPE_CHECKING, Any

from flowers_jax import reference
from flowers_jax.process.errors import UserError

if TYPE_CHECKING:
    import keras

# The reference file's name of each of `models.MODELS`.
ARCHITECTURES = {
    "pilot_cnn": "pilot",
    "base_cnn": "base",
    "base_cnn_v2": "base_v2",
    "improvement_1": "imp1",
    "improvement_2": "imp2",
    "improvement_3": "imp3",
    "improvement_4": "imp4",
    "alexnet": "alexnet",
    "vgg16": "vgg16",
    "googlenet": "googlenet",
}


def create_keras_model(name: str, image_size: int, num_classes: int = 5) -> "keras.Model":
    """The architecture `name` in Keras, as the study wrote it: probabilities, not logits.

    Args:
      name: one of `ARCHITECTURES`.
      image_size: height and width.
      num_classes: units of the classifiers.

    Returns:
      A functional model; GoogLeNet's has the outputs main, aux1 and aux2.

    Raises:
      UserError: the study has no such architecture.
    """
    import keras

    if name not in ARCHITECTURES:
        raise UserError(
            f"{name} is not known in Keras, only {', '.join(ARCHITECTURES)}; write the weights as "
            ".msgpack."
        )

    x = inputs = keras.Input((image_size, image_size, 3))
    auxiliary = []
    for layer in reference.study()["architectures"][ARCHITECTURES[name]]:
        if "auxiliary_head" in layer:
            y = x
            for inner in layer["layers"]:
                y = _apply(y, inner, num_classes)
            auxiliary.append(y)
        else:
            x = _apply(x, layer, num_classes)
    return keras.Model(inputs, [x, *auxiliary] if auxiliary else x)


def _apply(x: Any, layer: dict[str, Any], num_classes: int) -> Any:  # noqa: ANN401
    """Output of one entry of the reference file's list of layers."""
    from keras import layers as kl

    padding = layer.get("padding", "valid")
    match layer:
        case {"conv": features, "kernel": kernel, "stride": stride}:
            return kl.Conv2D(features, kernel, stride, padding, activation="relu")(x)
        case {"max_pool": size, "stride": stride}:
            return kl.MaxPooling2D(size, stride, padding)(x)
        case {"average_pool": size, "stride": stride}:
            return kl.AveragePooling2D(size, stride, padding)(x)
        case {"dropout": rate}:
            return kl.Dropout(rate)(x)
        case {"dense": _, "activation": "softmax"}:
            return kl.Dense(num_classes, activation="softmax")(x)
        case {"dense": units, "activation": activation}:
            return kl.Dense(units, activation=activation)(x)
        case {"flatten": True}:
            return kl.Flatten()(x)
        case {"batch_norm": True}:
            return kl.BatchNormalization()(x)
        case {"global_average_pool": True}:
            return kl.GlobalAveragePooling2D()(x)
        case {"inception": _}:
            return _inception(x, layer)
    raise ValueError(f"the reference file has a layer of an unknown kind: {layer}")


def _inception(x: Any, features: dict[str, int]) -> Any:  # noqa: ANN401
    from keras import layers as kl

    def conv(name: str, kernel: int, x: Any) -> Any:  # noqa: ANN401
        return kl.Conv2D(features[name], kernel, padding="same", activation="relu")(x)

    branches = [
        conv("1x1", 1, x),
        conv("3x3", 3, conv("3x3_reduce", 1, x)),
        conv("5x5", 5, conv("5x5_reduce", 1, x)),
        conv("pool_proj", 1, kl.MaxPooling2D(3, 1, padding="same")(x)),
    ]
    return kl.Concatenate()(branches)
