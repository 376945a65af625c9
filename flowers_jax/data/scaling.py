"""From pixels to network input."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

Images = Float[Array, "*batch height width 3"]

# Names of `config.input_scaling`. '0_1_twice' is the study's improvement 5, which divided by 255 in
# the generator and once more in the model; 'caffe' is `preprocess_input` of
# `keras.applications.vgg16`: BGR, minus the means of ImageNet.
SCALINGS: dict[str, Callable[[Images], Images]] = {
    "none": lambda x: x,
    "0_1": lambda x: x / 255.0,
    "-1_1": lambda x: x / 127.5 - 1.0,
    "0_1_twice": lambda x: x / 255.0 / 255.0,
    "caffe": lambda x: x[..., ::-1] - jnp.array([103.939, 116.779, 123.68]),
}


def scale(images: Real[Array, "*batch height width 3"], scaling: str) -> Images:
    """Pixels 0..255 of any dtype to float32 network input."""
    scaled = SCALINGS[scaling](images.astype(jnp.float32))
    # XLA's TPU compiler aborts if it folds the conversion from uint8 into a convolution's gradient.
    return jax.lax.optimization_barrier(scaled)
