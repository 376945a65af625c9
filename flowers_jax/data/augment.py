"""Augmentation on the device: random changes of each training image.

The warp is that of Keras' `ImageDataGenerator` (`apply_affine_transform`, then flips), which the
study's improvement 5 used: rotation about the image centre, a zoom factor per axis, bilinear
sampling; pixels outside repeat the nearest edge.
"""

import inspect
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, Key, Real

Matrix = Float[Array, "2 2"]  # maps centred output (row, column) to input
Image = Real[Array, "height width 3"]
# From a float32 image of pixels 0..255 and a key to an image of the same shape.
Transform = Callable[[Image, Key[Array, ""]], Image]


def warp_randomly(
    image: Image,
    key: Key[Array, ""],
    rotation_degrees: float = 0.0,
    zoom: float = 0.0,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
) -> Image:
    """One random affine warp about the centre.

    Args:
      image: pixels.
      key: what it draws from.
      rotation_degrees: the angle is uniform in +- this.
      zoom: each axis' factor is uniform in `[1 - zoom, 1 + zoom]`; below 1 magnifies.
      horizontal_flip: mirror left and right with probability 1/2.
      vertical_flip: mirror top and bottom with probability 1/2.
    """
    matrix = random_matrix(key, rotation_degrees, zoom, horizontal_flip, vertical_flip)
    return warp(image.astype(jnp.float32), matrix)


# A function of image, key and arguments, which become settings of `config.data.augment`. One whose
# arguments all have their defaults is left out, so these must change nothing.
AUGMENTATIONS: dict[str, Callable[..., Image]] = {"warp": warp_randomly}


def arguments(name: str) -> dict[str, Any]:
    """The settings of an augmentation, with their defaults."""
    _, _, *parameters = inspect.signature(AUGMENTATIONS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def transforms(settings: Mapping[str, Any]) -> tuple[Transform, ...]:
    """What `config.data.augment` asks for, in the order of its keys."""
    order = list(settings)
    chosen = []
    for name, function in AUGMENTATIONS.items():
        own = arguments(name)
        given = {key: settings[key] for key in own if settings.get(key, own[key]) != own[key]}
        if given:
            place = min(order.index(key) for key in given)
            chosen.append((place, partial(_with_own_key, name, partial(function, **given))))
    return tuple(transform for _, transform in sorted(chosen, key=lambda pair: pair[0]))


def _with_own_key(name: str, transform: Transform, image: Image, key: Key[Array, ""]) -> Image:
    # The draws of each are its own, whatever others there are; the warp, once the only one, draws
    # from the image's key.
    if name == "warp":
        return transform(image, key)
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    return transform(image.astype(jnp.float32), key)


def views(settings: Mapping[str, Any] | None) -> tuple[tuple[int, ...], ...]:
    """The flips that training may have used, none first, as axes of a batch of images.

    Args:
      settings: `config.data.augment`.
    """
    result: list[tuple[int, ...]] = [()]
    for name, axis in (("horizontal_flip", 2), ("vertical_flip", 1)):
        result += [(*axes, axis) for axes in result] if (settings or {}).get(name) else []
    return tuple(result)


def random_matrix(
    key: Key[Array, ""],
    rotation_degrees: float,
    zoom: float,
    horizontal_flip: bool,
    vertical_flip: bool,
) -> Matrix:
    """A random warp about the centre."""
    keys = jax.random.split(key, 4)
    limit = jnp.deg2rad(rotation_degrees)
    angle = jax.random.uniform(keys[0], minval=-limit, maxval=limit)
    factors = jax.random.uniform(keys[1], (2,), minval=1 - zoom, maxval=1 + zoom)
    flip = jnp.stack(
        [
            jax.random.bernoulli(keys[2]) & vertical_flip,
            jax.random.bernoulli(keys[3]) & horizontal_flip,
        ]
    )
    return affine_matrix(angle, factors, flip)


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
    centre = [(length - 1) / 2 for length in image.shape[:2]]
    rows, columns = (jnp.arange(image.shape[axis]) - centre[axis] for axis in (0, 1))
    # Sums, because GPUs and TPUs round what goes into a matrix product.
    source = [
        factors[0] * rows[:, None] + factors[1] * columns + middle
        for factors, middle in zip(matrix, centre, strict=True)
    ]
    # A channel at a time: XLA for TPUs then accesses a twentieth of the bytes.
    sample = partial(map_coordinates, coordinates=source, order=1, mode="nearest")
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def augment(
    images: Real[Array, "batch height width 3"],
    indices: Int[Array, " batch"],
    key: Key[Array, ""],
    chosen: tuple[Transform, ...],
) -> Float[Array, "batch height width 3"]:
    """Changes a batch at random.

    Args:
      images: pixels 0..255.
      indices: each image's place in the split: its change depends on `key` and its index only, not
        on the batch it is in.
      key: of the epoch.
      chosen: see `transforms`.
    """

    def one(image: Image, index: Int[Array, ""]) -> Float[Array, "height width 3"]:
        own = jax.random.fold_in(key, index)
        for transform in chosen:
            image = transform(image, own)
        return image

    return jax.vmap(one)(images, indices)
