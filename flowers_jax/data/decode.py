"""Image files to pixels, with tf.data: decoded and resized once, on all cores.

TensorFlow is imported where it is used, and never sees an accelerator.
"""

import functools
import logging
import os
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowers_jax.process.errors import UserError

if TYPE_CHECKING:
    from tensorflow import DType, Tensor

RESIZES = ("bilinear", "nearest")
# An image that claims more pixels is not decoded: a file of kilobytes can ask for gigabytes.
MAX_PIXELS = 50_000_000

log = logging.getLogger(__name__)


def import_tensorflow() -> types.ModuleType:
    """TensorFlow, told to leave the accelerators to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as an exception
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            "TensorFlow, which decodes the images, is not installed; pip install "
            "'flowers-jax[tf]' (from a clone: pip install '.[tf]')."
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Black images."""
    return np.zeros(shape, np.uint8)


def decode(
    paths: Sequence[str],
    image_size: int,
    resize: str,
    allocate: Callable[[tuple[int, ...]], np.ndarray] = in_memory,
) -> tuple[UInt8[np.ndarray, "n size size 3"], dict[int, str]]:
    """Decodes JPEG, PNG, BMP and GIF (first frame) files to RGB, on all cores.

    As in Keras' `image_dataset_from_directory` (bilinear) and `flow_from_directory` (nearest), the
    aspect ratio is not kept, nothing is antialiased, and an EXIF orientation is ignored.

    Args:
      paths: the files.
      image_size: height and width of the result.
      resize: 'bilinear' or 'nearest'.
      allocate: makes uint8 zeros of a shape.

    Returns:
      The pixels, and for each file that could not be decoded its position and the reason (its
      pixels are zero).
    """
    tf = import_tensorflow()

    def bilinear(content: "Tensor") -> "Tensor":
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        # Resizing integers is slower.
        return tf.image.resize(tf.cast(image, tf.float32), (image_size, image_size))

    # `flow_from_directory` uses Pillow, which decodes with libjpeg's accurate transform and, to
    # resize, steps from sample to sample by addition, whose rounding decides ties.
    def nearest(content: "Tensor") -> "Tensor":
        image = tf.cond(
            tf.io.is_jpeg(content),
            lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
        )
        for axis in (0, 1):
            step = tf.cast(tf.shape(image)[axis], tf.float64) / image_size
            samples = tf.cumsum(tf.concat([[step / 2], tf.fill([image_size - 1], step)], axis=0))
            image = tf.gather(image, tf.cast(samples, tf.int32), axis=axis)
        return image

    # AutoGraph quotes code that it cannot convert in a warning, the environment's values included.
    @tf.autograph.experimental.do_not_convert
    def load(
        count_pixels: Callable[["Tensor"], "Tensor"], position: "Tensor", path: "Tensor"
    ) -> tuple["Tensor", "Tensor"]:
        content = tf.io.read_file(path)
        small = count_pixels(content) <= MAX_PIXELS
        content = tf.where(small, content, b"")  # which no decoder accepts
        image = {"bilinear": bilinear, "nearest": nearest}[resize](content)
        return position, tf.cast(tf.round(tf.cast(image, tf.float32)), tf.uint8)

    images = allocate((len(paths), image_size, image_size, 3))
    # Reading a pipe or a device would never end.
    files = [i for i, path in enumerate(paths) if os.path.isfile(path)]
    # Most photographs are JPEG, and asking for the format takes a tenth of the time of decoding.
    # libjpeg complains on stderr of files in another format.
    jpegs = [i for i in files if paths[i].lower().endswith((".jpeg", ".jpg"))]
    bad = set(range(len(paths)))
    for count_pixels, chosen in ((_jpeg_pixels, jpegs), (_pixels, files)):
        remaining = [i for i in chosen if i in bad]
        if not remaining:
            continue
        names = tf.constant([os.fsencode(paths[i]) for i in remaining], tf.string)
        dataset = tf.data.Dataset.from_tensor_slices((np.array(remaining, np.int64), names))
        # AUTOTUNE needs as long to find its number as many folders need to be decoded.
        dataset = dataset.map(
            functools.partial(load, count_pixels), num_parallel_calls=4 * (os.cpu_count() or 1)
        )
        decoded = dataset.ignore_errors().batch(32).prefetch(2)
        for positions, pixels in decoded.as_numpy_iterator():
            images[positions] = pixels
            bad.difference_update(positions.tolist())
    return images, {i: reason(paths[i]) for i in sorted(bad)}


def _pixels(content: "Tensor") -> "Tensor":
    """Height times width according to the header, int64; above the limit for unknown formats."""
    tf = import_tensorflow()

    def size(start: int, kind: "DType", little_endian: bool) -> "Tensor":
        field = tf.strings.substr(content, start, 2 * kind.size)
        pair = tf.io.decode_raw(field, kind, little_endian=little_endian)
        return tf.reduce_prod(tf.abs(tf.cast(pair, tf.int64)))  # a BMP's height can be negative

    def starts(magic: bytes) -> "Tensor":
        long_enough = tf.strings.length(content) >= 26
        return long_enough & (tf.strings.substr(content, 0, len(magic)) == magic)

    def of_other_kinds() -> "Tensor":
        return tf.case(
            [
                (starts(b"\x89PNG"), lambda: size(16, tf.int32, little_endian=False)),
                (starts(b"GIF8"), lambda: size(6, tf.uint16, little_endian=True)),
                (starts(b"BM"), lambda: size(18, tf.int32, little_endian=True)),
            ],
            default=lambda: tf.constant(MAX_PIXELS + 1, tf.int64),
        )

    return tf.cond(tf.io.is_jpeg(content), lambda: _jpeg_pixels(content), of_other_kinds)


def _jpeg_pixels(content: "Tensor") -> "Tensor":
    """As `_pixels`, for a JPEG; an error for another format."""
    tf = import_tensorflow()
    return tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(content), tf.int64)[:2])


def reason(path: str) -> str:
    """Why a file could not be decoded, in words."""
    try:
        if os.path.islink(path) and not os.path.exists(path):
            return "is a link to nothing"
        if os.path.getsize(path) == 0 and os.path.isfile(path):
            return "is empty"
        if not os.path.isfile(path) and not os.path.isdir(path):
            return "is not a file"
        with Image.open(path) as image:
            kind = image.format
            if image.width * image.height > MAX_PIXELS:
                return f"has more than {MAX_PIXELS // 1_000_000} megapixels"
            image.load()
    except Image.UnidentifiedImageError:
        return "is not an image"
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS // 1_000_000} megapixels"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
        system = getattr(error, "strerror", None)
        return f"cannot be read: {system}" if system else "is truncated or damaged"
    return f"is damaged or of a kind that is not supported ({kind})"


def report_bad(bad: Mapping[str, str], num_images: int, on_bad_image: str) -> None:
    """Names the files that cannot be decoded.

    Args:
      bad: path and reason of each.
      num_images: files in all.
      on_bad_image: 'error' to raise, 'skip' to log.

    Raises:
      UserError: naming all of them, if `on_bad_image` is 'error'.
    """
    names = "; ".join(f"{path!a} {why}" for path, why in sorted(bad.items()))
    if on_bad_image == "error":
        raise UserError(
            f"{len(bad)} of {num_images} images cannot be used: {names}. Repair or remove "
            "them, or leave them out with --config.data.on_bad_image=skip."
        )
    log.warning("%d of %d images left out: %s", len(bad), num_images, names)
