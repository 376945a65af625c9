"""Augmentation on the device: one random affine warp per image.

The warp is that of Keras' `ImageDataGenerator` (`apply_affine_transform`, then flips), which the
study's improvement 5 used: rotation about the image centre, a zoom factor per axis, bilinear
sampling; pixels outside repeat the nearest edge.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Real

Matrix = Float[Array, "2 2"]  # maps centred output (row, column) to input
Image = Real[Array, "height width 3"]


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


def random_matrix(key: Key[Array, ""], augmentation: Augmentation) -> Matrix:
    """A random warp about the centre."""
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


def affine_matrix(
    angle: Float[Array, ""], zoom: Float[Array, "2"], flip: Bool[Array, "2"]
) -> Matrix:
    """Rotation by `angle` (radians), zoom and flips (row, column) as one matrix.

    Flips act on the warped image, as in Keras: they mirror the output coordinates first.
    """
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    rotation = jnp.array([[cos, sin], [-sin, cos]])
    return rotation * zoom * jnp.where(flip, -1.0, 1.0)


def warp(image: Image, matrix: Matrix) -> Float[Array, "height width 3"]:
    """Samples the image bilinearly at `matrix` times the centred output coordinates."""
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
    images: Real[Array, "batch height width 3"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    augmentation: Augmentation,
) -> Float[Array, "batch height width 3"]:
    """Warps a batch at random.

    Args:
      images: pixels 0..255.
      indices: each image's place in the split: its warp depends on `key` and its index only, not on
        the batch it is in.
      key: of the epoch.
      augmentation: the ranges.
    """

    def one(image: Image, index: Int[Array, ""]) -> Float[Array, "height width 3"]:
        matrix = random_matrix(jax.random.fold_in(key, index), augmentation)
        return warp(image.astype(jnp.float32), matrix)

    return jax.vmap(one)(images, indices)
