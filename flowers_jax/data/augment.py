"""What happens to a batch on the device: one affine warp per image, then scaling.

The warp is that of Keras' `ImageDataGenerator` (`apply_affine_transform`, then flips), which the
study's improvement 5 used: rotation about the image centre, a zoom factor per axis, bilinear
sampling, pixels outside repeat the nearest edge.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Names of `config.input_scaling`. '0_1_twice' is the study's improvement 5, which divided by 255 in
# the generator and once more in the model; 'caffe' is `preprocess_input` of
# `keras.applications.vgg16`: BGR, minus the means of ImageNet.
SCALINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "none": lambda x: x,
    "0_1": lambda x: x / 255.0,
    "-1_1": lambda x: x / 127.5 - 1.0,
    "0_1_twice": lambda x: x / 255.0 / 255.0,
    "caffe": lambda x: x[..., ::-1] - jnp.array([103.939, 116.779, 123.68]),
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Ranges of the random warp.

    Attributes:
      rotation_degrees: the angle is uniform in +- this.
      zoom: each axis' factor is uniform in `[1 - zoom, 1 + zoom]`; below 1 magnifies.
      horizontal_flip: mirror left and right with probability 1/2.
      vertical_flip: mirror top and bottom with probability 1/2.
    """

    rotation_degrees: float
    zoom: float
    horizontal_flip: bool
    vertical_flip: bool


def scale(images: jax.Array, scaling: str) -> jax.Array:
    """Pixels 0..255 of any dtype to float32 network input."""
    return SCALINGS[scaling](images.astype(jnp.float32))


def random_matrix(key: jax.Array, augmentation: Augmentation) -> jax.Array:
    """A random `[2, 2]` matrix that maps output (row, column) to input, about the centre."""
    keys = jax.random.split(key, 4)
    limit = jnp.deg2rad(augmentation.rotation_degrees)
    angle = jax.random.uniform(keys[0], minval=-limit, maxval=limit)
    zoom = jax.random.uniform(
        keys[1], (2,), minval=1 - augmentation.zoom, maxval=1 + augmentation.zoom
    )
    flip = jnp.stack(
        [
            jax.random.bernoulli(keys[2]) & augmentation.vertical_flip,
            jax.random.bernoulli(keys[3]) & augmentation.horizontal_flip,
        ]
    )
    return affine_matrix(angle, zoom, flip)


def affine_matrix(angle: jax.Array, zoom: jax.Array, flip: jax.Array) -> jax.Array:
    """Rotation by `angle` (radians), zoom and flips (both `[row, column]`) as one matrix.

    Flips act on the warped image, as in Keras: they mirror the output coordinates first.
    """
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    rotation = jnp.array([[cos, sin], [-sin, cos]])
    return rotation * zoom * jnp.where(flip, -1.0, 1.0)


def warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Samples `image` `[h, w, c]` bilinearly at `matrix` times the centred output coordinates."""
    size = jnp.array(image.shape[:2])
    centre = (size - 1) / 2
    grid = jnp.stack(
        jnp.meshgrid(jnp.arange(image.shape[0]), jnp.arange(image.shape[1]), indexing="ij"), -1
    )
    source = jnp.clip((grid - centre) @ matrix.T + centre, 0, size - 1)
    low = jnp.floor(source).astype(jnp.int32)
    high = jnp.minimum(low + 1, size - 1)
    weight = (source - low)[..., None]
    (r0, c0), (r1, c1) = jnp.moveaxis(low, -1, 0), jnp.moveaxis(high, -1, 0)
    top = image[r0, c0] * (1 - weight[..., 1, :]) + image[r0, c1] * weight[..., 1, :]
    bottom = image[r1, c0] * (1 - weight[..., 1, :]) + image[r1, c1] * weight[..., 1, :]
    return top * (1 - weight[..., 0, :]) + bottom * weight[..., 0, :]


def augment(
    images: jax.Array, indices: jax.Array, key: jax.Array, augmentation: Augmentation
) -> jax.Array:
    """Warps a batch at random.

    Args:
      images: `[batch, h, w, c]`, pixels 0..255.
      indices: `[batch]`, each image's place in the split: an image's warp depends on `key` and
        its index only, not on the batch it is in.
      key: the epoch's key.
      augmentation: the ranges.

    Returns:
      float32 `[batch, h, w, c]`.
    """

    def one(image: jax.Array, index: jax.Array) -> jax.Array:
        matrix = random_matrix(jax.random.fold_in(key, index), augmentation)
        return warp(image.astype(jnp.float32), matrix)

    return jax.vmap(one)(images, indices)
