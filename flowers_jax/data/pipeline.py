"""tf.data from image files to batches: decode and resize once, then shuffle, batch, prefetch.

TensorFlow is imported where it is used, and never sees an accelerator.
"""

import collections
import dataclasses
import functools
import itertools
import logging
import os
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from PIL import Image

from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

RESIZES = ("bilinear", "nearest")
# A batch: image uint8 [b, h, w, 3], label int32 [b], index int32 [b] (place in the split), mask
# bool [b] (false for the padding of the last batch).
Batch = dict[str, np.ndarray]
# (paths, image size, resize) -> pixels, and why some files have none
Decode = Callable[[Sequence[str], int, str], tuple[np.ndarray | jax.Array, dict[int, str]]]

# An image that claims more pixels is not decoded: a file of kilobytes can ask for gigabytes.
MAX_PIXELS = 50_000_000

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Decoded images.

    Attributes:
      files: those that could be decoded, `[n]`.
      images: pixels, uint8 `[m, size, size, 3]` with m >= n, of NumPy or, spread over devices, JAX.
      rows: int `[n]`, where in `images` each file is.
    """

    files: ImageFolder
    images: np.ndarray | jax.Array
    rows: np.ndarray


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
) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes JPEG, PNG, BMP and GIF (first frame) files to RGB, on all cores.

    The aspect ratio is not kept and nothing is antialiased, as in Keras'
    `image_dataset_from_directory` (bilinear) and `flow_from_directory` (nearest); nor is an EXIF
    orientation looked at.

    Args:
      paths: the files.
      image_size: height and width of the result.
      resize: 'bilinear' or 'nearest'.
      allocate: makes the result of a shape, uint8 zeros.

    Returns:
      uint8 `[n, image_size, image_size, 3]`, and for each file that could not be decoded its
      position and the reason (its pixels are zero).
    """
    tf = import_tensorflow()

    def bilinear(content: "tf.Tensor") -> "tf.Tensor":
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        # Of integers the resizing is slower.
        return tf.image.resize(tf.cast(image, tf.float32), (image_size, image_size))

    # `flow_from_directory` uses Pillow, which takes the accurate transform of libjpeg to decode
    # and, to resize, steps from sample to sample by addition, whose rounding decides ties.
    def nearest(content: "tf.Tensor") -> "tf.Tensor":
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

    # What AutoGraph does not understand it quotes in a warning, the environment's values included.
    @tf.autograph.experimental.do_not_convert
    def load(
        count_pixels: Callable[["tf.Tensor"], "tf.Tensor"], position: "tf.Tensor", path: "tf.Tensor"
    ) -> tuple["tf.Tensor", "tf.Tensor"]:
        content = tf.io.read_file(path)
        small = count_pixels(content) <= MAX_PIXELS
        content = tf.where(small, content, b"")  # which no decoder takes
        image = {"bilinear": bilinear, "nearest": nearest}[resize](content)
        return position, tf.cast(tf.round(tf.cast(image, tf.float32)), tf.uint8)

    images = allocate((len(paths), image_size, image_size, 3))
    # Reading a pipe or a device would never end.
    files = [i for i, path in enumerate(paths) if os.path.isfile(path)]
    # Photographs are JPEG, and to ask for the kind takes a tenth of the time to decode one. Of
    # another kind libjpeg complains on stderr.
    jpegs = [i for i in files if paths[i].lower().endswith((".jpeg", ".jpg"))]
    bad = set(range(len(paths)))
    for count_pixels, chosen in ((_jpeg_pixels, jpegs), (_pixels, files)):
        remaining = [i for i in chosen if i in bad]
        if not remaining:
            continue
        names = tf.constant([os.fsencode(paths[i]) for i in remaining], tf.string)
        dataset = tf.data.Dataset.from_tensor_slices((np.array(remaining, np.int64), names))
        # AUTOTUNE takes as long to find its number as many a folder takes to decode.
        dataset = dataset.map(
            functools.partial(load, count_pixels), num_parallel_calls=4 * os.cpu_count()
        )
        decoded = dataset.ignore_errors().batch(32).prefetch(2)
        for positions, pixels in decoded.as_numpy_iterator():
            images[positions] = pixels
            bad.difference_update(positions.tolist())
    return images, {i: reason(paths[i]) for i in sorted(bad)}


def _pixels(content: "tf.Tensor") -> "tf.Tensor":
    """Height times width as the header says, int64; over the limit where it is of no known kind."""
    tf = import_tensorflow()

    def size(start: int, kind: "tf.DType", little_endian: bool) -> "tf.Tensor":
        field = tf.strings.substr(content, start, 2 * kind.size)
        pair = tf.io.decode_raw(field, kind, little_endian=little_endian)
        return tf.reduce_prod(tf.abs(tf.cast(pair, tf.int64)))  # a BMP's height can be negative

    def starts(magic: bytes) -> "tf.Tensor":
        long_enough = tf.strings.length(content) >= 26
        return long_enough & (tf.strings.substr(content, 0, len(magic)) == magic)

    def of_other_kinds() -> "tf.Tensor":
        return tf.case(
            [
                (starts(b"\x89PNG"), lambda: size(16, tf.int32, little_endian=False)),
                (starts(b"GIF8"), lambda: size(6, tf.uint16, little_endian=True)),
                (starts(b"BM"), lambda: size(18, tf.int32, little_endian=True)),
            ],
            default=lambda: tf.constant(MAX_PIXELS + 1, tf.int64),
        )

    return tf.cond(tf.io.is_jpeg(content), lambda: _jpeg_pixels(content), of_other_kinds)


def _jpeg_pixels(content: "tf.Tensor") -> "tf.Tensor":
    """As `_pixels`, of a JPEG; an error for another kind."""
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
            return "is no file"
        with Image.open(path) as image:
            kind = image.format
            if image.width * image.height > MAX_PIXELS:
                return f"has more than {MAX_PIXELS // 1_000_000} megapixels"
            image.load()
    except Image.UnidentifiedImageError:
        return "is no image"
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS // 1_000_000} megapixels"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three
        system = getattr(error, "strerror", None)
        return f"cannot be read: {system}" if system else "is truncated or damaged"
    return f"is damaged or of a kind that is not supported ({kind})"


def load(
    train: ImageFolder,
    validation: ImageFolder,
    image_size: int,
    resize: str,
    on_bad_image: str,
    decode: Decode = decode,
) -> tuple[Split, Split, int]:
    """Decodes both splits, once if they are the same object.

    Args:
      train: the training files.
      validation: the validation files.
      image_size: height and width.
      resize: 'bilinear' or 'nearest'.
      on_bad_image: 'error', or 'skip' to leave out the files that cannot be decoded.
      decode: what decodes.

    Returns:
      The training split, the validation split and the number of files left out.

    Raises:
      UserError: naming every bad file, if `on_bad_image` is 'error'; or nothing is left.
    """
    start = time.perf_counter()
    splits, reasons = [], {}
    for files in [train] if train is validation else [train, validation]:
        images, bad = decode(files.paths, image_size, resize)
        reasons |= {files.paths[i]: why for i, why in bad.items()}
        good = np.setdiff1d(np.arange(len(files)), list(bad))
        splits.append(Split(files.take(good), images, good))
    num_images = sum(len(split.files) for split in splits) + len(reasons)
    log.info("%d images decoded in %.1f s", num_images, time.perf_counter() - start)
    if reasons:
        names = "; ".join(f"{path!a} {reason}" for path, reason in sorted(reasons.items()))
        if on_bad_image == "error":
            raise UserError(
                f"{len(reasons)} of {num_images} images cannot be used: {names}. Repair or remove "
                "them, or leave them out with --config.data.on_bad_image=skip."
            )
        log.warning("%d of %d images left out: %s", len(reasons), num_images, names)
        if not all(len(split.files) for split in splits):
            raise UserError("no usable image is left in a split; see the images named above.")
    return splits[0], splits[-1], len(reasons)


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the whole split that depends on the seed and the epoch only, `[n]`."""
    return np.random.default_rng([seed, epoch]).permutation(num_images)


def plan(
    num_images: int, batch_size: int, order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which sample is where in an epoch.

    Args:
      num_images: in the split.
      batch_size: images in a batch.
      order: the order of the samples, `[n]` or one per replica, `[replicas, n]`; as they are when
        None.

    Returns:
      Places in the split, int32 `[steps, (replicas,) batch]`, and the mask, bool of that shape: the
      last batch is filled with samples that repeat others and must not count.
    """
    order = np.arange(num_images) if order is None else order
    if order.ndim == 2:
        index, mask = zip(*(plan(num_images, batch_size, row) for row in order), strict=True)
        return np.stack(index, axis=1), np.stack(mask, axis=1)
    steps = -(-len(order) // batch_size)
    index = np.resize(order, (steps, batch_size)).astype(np.int32)
    return index, np.arange(index.size).reshape(index.shape) < len(order)


def batches(
    split: Split, batch_size: int, order: np.ndarray | None = None, first: int = 0
) -> Iterator[Batch]:
    """One epoch of batches, each of the full size: the last one is padded and masked.

    Args:
      split: the images.
      batch_size: images in a batch.
      order: as of `plan`.
      first: the batch to begin with.

    Yields:
      Batches, with replicas on the first axis if `order` has them; where `mask` is false the sample
      repeats another and must not count.
    """
    tf = import_tensorflow()
    index, mask = plan(len(split.files), batch_size, order)

    def gather(step: np.ndarray) -> np.ndarray:
        return split.images[split.rows[index[step]]]

    # A thread of tf.data gathers the next batches while the device computes.
    dataset = tf.data.Dataset.range(first, len(index))
    dataset = dataset.map(lambda step: tf.numpy_function(gather, [step], tf.uint8, stateful=False))
    for step, image in enumerate(dataset.prefetch(2).as_numpy_iterator(), first):
        labels = split.files.labels[index[step]]
        yield {"image": image, "label": labels, "index": index[step], "mask": mask[step]}


def prefetch_to_device(
    epoch: Iterable[Batch], sharding: jax.sharding.Sharding, depth: int = 2
) -> Iterator[dict[str, jax.Array]]:
    """Puts batches on the devices `depth` ahead of their use."""
    epoch = iter(epoch)
    queue = collections.deque()
    while True:
        for batch in itertools.islice(epoch, depth - len(queue)):
            queue.append(jax.device_put(batch, sharding))
        if not queue:
            return
        yield queue.popleft()
