"""Image files to pixels, with tf.data: decoded and resized once, on all cores.

TensorFlow decodes JPEG, as in Keras; Pillow decodes every other format. TensorFlow is imported
where it is used, and never sees an accelerator.
"""

import contextlib
import logging
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageOps

from flowers_jax.process.errors import UserError

if TYPE_CHECKING:
    from tensorflow import Tensor

# An image that claims more pixels is not decoded: a file of kilobytes can ask for gigabytes.
MAX_PIXELS = 50_000_000
# An EXIF block is at the start of a file.
EXIF_BYTES = 4096
ORIENTATION = 0x0112

log = logging.getLogger(__name__)


def import_tensorflow() -> types.ModuleType:
    """TensorFlow, told to leave the accelerators to JAX."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters comes as an exception
    try:
        with _stderr_silenced():
            import tensorflow as tf
    except ImportError as error:
        raise UserError(
            "TensorFlow, which decodes the images, is not installed; pip install "
            "'flowers-jax[tf]' (from a clone: pip install '.[tf]')."
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return tf


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[None]:
    """TensorFlow writes to the file descriptor before it has read its log level."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _bilinear(image: "Tensor", size: int) -> "Tensor":
    tf = import_tensorflow()
    # Resizing integers is slower.
    image = tf.image.resize(tf.cast(image, tf.float32), (size, size))
    return tf.cast(tf.round(image), tf.uint8)


def _nearest(image: "Tensor", size: int) -> "Tensor":
    # `flow_from_directory` uses Pillow, which steps from sample to sample by addition, whose
    # rounding decides ties.
    tf = import_tensorflow()
    for axis in (0, 1):
        step = tf.cast(tf.shape(image)[axis], tf.float64) / size
        samples = tf.cumsum(tf.concat([[step / 2], tf.fill([size - 1], step)], axis=0))
        image = tf.gather(image, tf.cast(samples, tf.int32), axis=axis)
    return image


_RESIZES = {"bilinear": _bilinear, "nearest": _nearest}
RESIZES = tuple(_RESIZES)


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Black images."""
    return np.zeros(shape, np.uint8)


def decode(
    paths: Sequence[str],
    image_size: int,
    resize: str,
    allocate: Callable[[tuple[int, ...]], np.ndarray] = in_memory,
    exif_orientation: bool = False,
) -> tuple[UInt8[np.ndarray, "n size size 3"], dict[int, str]]:
    """Decodes image files (of an animation the first frame) to RGB, on all cores.

    As in Keras' `image_dataset_from_directory` (bilinear) and `flow_from_directory` (nearest), the
    aspect ratio is not kept and nothing is antialiased.

    Args:
      paths: the files.
      image_size: height and width of the result.
      resize: 'bilinear' or 'nearest'.
      allocate: makes uint8 zeros of a shape.
      exif_orientation: whether to turn images as their EXIF data says; Keras ignores it.

    Returns:
      The pixels, and for each file that could not be decoded its position and the reason (its
      pixels are zero).
    """
    tf = import_tensorflow()
    resized = partial(_RESIZES[resize], size=image_size)

    def jpeg(path: "Tensor") -> "Tensor":
        content = tf.io.read_file(path)
        num_pixels = tf.reduce_prod(tf.cast(tf.image.extract_jpeg_shape(content), tf.int64)[:2])
        content = tf.where(num_pixels <= MAX_PIXELS, content, b"")  # which cannot be decoded
        # Pillow, and so `flow_from_directory`, takes libjpeg's accurate transform.
        method = "INTEGER_ACCURATE" if resize == "nearest" else ""
        return tf.io.decode_jpeg(content, channels=3, dct_method=method)

    def other(path: "Tensor") -> "Tensor":
        def read(path: bytes) -> np.ndarray:
            try:
                return read_rgb(path, exif_orientation)
            except Exception:  # TensorFlow would print it; `reason` says what it was
                return np.zeros((0, 0, 3), np.uint8)  # which cannot be resized

        return tf.ensure_shape(tf.numpy_function(read, [path], tf.uint8), (None, None, 3))

    images = allocate((len(paths), image_size, image_size, 3))
    # Reading a pipe or a device would never end.
    is_file = [os.path.isfile(path) for path in paths]
    starts = [_start(path) if there else b"" for path, there in zip(paths, is_file, strict=True)]
    jpegs = _jpegs(paths, starts, exif_orientation)
    bad = set(range(len(paths)))
    for read, chosen in ((jpeg, jpegs), (other, range(len(paths)))):
        remaining = [i for i in chosen if i in bad and is_file[i]]
        if remaining:
            names = [os.fsencode(paths[i]) for i in remaining]
            for positions, pixels in _batches(remaining, names, read, resized):
                images[positions] = pixels
                bad.difference_update(positions.tolist())
    return images, {i: reason(paths[i]) for i in sorted(bad)}


def decode_few(
    paths: Sequence[str], image_size: int, resize: str, exif_orientation: bool = False
) -> tuple[UInt8[np.ndarray, "n size size 3"], dict[int, str]]:
    """As `decode`, without TensorFlow, whose import takes longer than to decode a few images.

    The pixels are the same, bit for bit; JPEGs that are odd or damaged are left to TensorFlow.
    """
    images = in_memory((len(paths), image_size, image_size, 3))
    starts = [_start(path) if os.path.isfile(path) else b"" for path in paths]
    jpegs = _jpegs(paths, starts, exif_orientation)
    bad, odd = {}, []
    for i, path in enumerate(paths):
        try:
            pixels = _jpeg_pixels(path, resize) if i in jpegs else read_rgb(path, exif_orientation)
            (images[i],) = resize_pixels([pixels], image_size, resize)
        except Exception:  # as in `decode`
            if i in jpegs:
                odd.append(i)
            else:
                bad[i] = reason(path)
    if odd:
        images[odd], unreadable = decode(
            [paths[i] for i in odd], image_size, resize, exif_orientation=exif_orientation
        )
        bad |= {odd[i]: why for i, why in unreadable.items()}
    return images, dict(sorted(bad.items()))


def _jpeg_pixels(path: str, resize: str) -> UInt8[np.ndarray, "height width 3"]:
    content = Path(path).read_bytes()
    height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    if height * width > MAX_PIXELS or colours not in ("YCbCr", "Gray"):
        raise Unsupported
    # TensorFlow's own choices: libjpeg's fast transform unless told otherwise, smooth chroma.
    fast = resize == "bilinear"
    return simplejpeg.decode_jpeg(content, "RGB", fastdct=fast, fastupsample=False)


def resize_pixels(
    images: Iterable[UInt8[np.ndarray, "_ _ 3"]], image_size: int, resize: str
) -> UInt8[np.ndarray, "n size size 3"]:
    """Resizes images of any sizes as `decode` does, bit for bit."""
    resized = {"bilinear": _bilinear_in_numpy, "nearest": _nearest_in_numpy}[resize]
    shape = (image_size, image_size, 3)
    chosen = [image if image.shape == shape else resized(image, image_size) for image in images]
    return np.array(chosen, np.uint8).reshape(-1, *shape)


def _bilinear_in_numpy(image: np.ndarray, size: int) -> np.ndarray:
    def samples(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scale = np.float32(length) / np.float32(size)
        centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
        low = np.floor(centres)
        last = np.minimum(np.ceil(centres), length - 1)
        return np.maximum(low, 0).astype(int), last.astype(int), centres - low

    (top, bottom, down), (left, right, along) = map(samples, image.shape[:2])
    along, down = along[:, None], down[:, None, None]

    def row(pixels: np.ndarray) -> np.ndarray:
        return pixels[:, left] + (pixels[:, right] - pixels[:, left]) * along

    above, below = (row(image[rows].astype(np.float32)) for rows in (top, bottom))
    return np.rint(above + (below - above) * down).astype(np.uint8)


def _nearest_in_numpy(image: np.ndarray, size: int) -> np.ndarray:
    for axis in (0, 1):
        step = image.shape[axis] / size
        samples = np.cumsum([step / 2, *[step] * (size - 1)])
        image = image.take(samples.astype(int), axis=axis)
    return image


def _jpegs(paths: Sequence[str], starts: Sequence[bytes], exif_orientation: bool) -> list[int]:
    """Which files are JPEGs that need not be turned; the log counts those that could be."""
    turned = {i for i, start in enumerate(starts) if b"Exif" in start and is_turned(paths[i])}
    if turned:
        what = "turned" if exif_orientation else "read as they are stored, as in Keras"
        log.info("%d images have an EXIF orientation: %s", len(turned), what)
    return [
        i
        for i, start in enumerate(starts)
        if start.startswith(b"\xff\xd8\xff") and not (exif_orientation and i in turned)
    ]


def _batches(
    positions: Sequence[int],
    names: Sequence[bytes],
    read: Callable[["Tensor"], "Tensor"],
    resized: Callable[["Tensor"], "Tensor"],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and pixels of the files that can be read, in any order."""
    tf = import_tensorflow()

    # AutoGraph quotes code that it cannot convert in a warning, the environment's values included.
    @tf.autograph.experimental.do_not_convert
    def load(position: "Tensor", path: "Tensor") -> tuple["Tensor", "Tensor"]:
        return position, resized(read(path))

    files = (np.array(positions, np.int64), tf.constant(names, tf.string))
    dataset = tf.data.Dataset.from_tensor_slices(files)
    # AUTOTUNE needs as long to find its number as many folders need to be decoded.
    dataset = dataset.map(load, num_parallel_calls=4 * (os.cpu_count() or 1))
    yield from dataset.ignore_errors().batch(32).prefetch(2).as_numpy_iterator()


def _start(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(EXIF_BYTES)
    except OSError:
        return b""


def is_turned(path: str) -> bool:
    """Whether the EXIF data say that the image is to be turned or mirrored."""
    try:
        with Image.open(path) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except (OSError, SyntaxError, ValueError):  # Pillow raises all three
        return False


class Unsupported(ValueError):
    """The file is an image, but its pixels cannot be used."""


def read_rgb(
    path: str | bytes, exif_orientation: bool = False
) -> UInt8[np.ndarray, "height width 3"]:
    """Pillow's RGB pixels of an image file.

    Raises:
      Unsupported: the image is too large, or its values do not fill the range of their type.
      OSError, SyntaxError, ValueError: Pillow cannot read the file.
    """
    with Image.open(path) as image:
        return rgb(image, exif_orientation)


def rgb(image: Image.Image, exif_orientation: bool = False) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of an image that Pillow has opened; raises as `read_rgb`."""
    if image.width * image.height > MAX_PIXELS:
        raise Unsupported(f"has more than {MAX_PIXELS // 1_000_000} megapixels")
    if image.mode in ("I", "F"):
        raise Unsupported("has 32 bits per channel; convert it to 8")
    # Pillow takes the upper byte, which is nearly empty where 16 bits hold 12.
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if exif_orientation:
        image = ImageOps.exif_transpose(image)
    pixels = np.asarray(image.convert("RGB"))
    if deep and pixels.max() < 16:
        raise Unsupported("uses only the lower 12 of its 16 bits; convert it to 8 bits")
    return pixels


def reason(path: str) -> str:
    """Why a file could not be decoded, in words."""
    try:
        if os.path.islink(path) and not os.path.exists(path):
            return "is a link to nothing"
        if os.path.getsize(path) == 0 and os.path.isfile(path):
            return "is empty"
        if not os.path.isfile(path) and not os.path.isdir(path):
            return "is not a file"
        read_rgb(path)
    except Image.UnidentifiedImageError:
        return "is not an image"
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS // 1_000_000} megapixels"
    except Unsupported as error:
        return str(error)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
        system = getattr(error, "strerror", None)
        return f"cannot be read: {system}" if system else "is truncated or damaged"
    return "cannot be decoded"


def describe_bad(bad: Mapping[str, str], num_images: int) -> str:
    """Names the files that cannot be decoded, given path and reason of each, in words."""
    names = "; ".join(f"{path!a} {why}" for path, why in sorted(bad.items()))
    return f"{len(bad)} of {num_images} images cannot be used: {names}"
