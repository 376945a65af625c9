"""From decoded images to the batches of an epoch, wherever the images are kept."""

import collections
import contextlib
import dataclasses
import errno
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int, UInt8
from ml_collections import ConfigDict

from flowers_jax.data import decode
from flowers_jax.data.folder import ImageFolder
from flowers_jax.data.splits import Files
from flowers_jax.process.errors import UserError

# Where decoded images are kept: on the devices, in main memory, or in a file.
CACHES = ("auto", "device", "host", "disk")
# Batches sent to the devices ahead of their use.
AHEAD = 2

log = logging.getLogger(__name__)


class Batch(TypedDict):
    """Samples for one step; those whose mask is false are padding and do not count.

    `index` is each sample's place in its split.
    """

    image: UInt8[Array, "batch height width 3"]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]
    mask: Bool[Array, " batch"]


class Batches:
    """A decoded split as batches of one shape: the last one is padded and masked.

    Args:
      files: those that could be decoded, in the order of the split.
      images: uint8 `[m, size, size, 3]` in main memory (NumPy) or spread over the devices (JAX).
      rows: the place of each file in `images`, int `[len(files)]`.
      batch_size: samples in a batch, not counting padding.
      mesh: the devices among which a batch is split, on the axis `data`.
    """

    def __init__(
        self,
        files: ImageFolder,
        images: np.ndarray | jax.Array,
        rows: Int[np.ndarray, " n"],
        batch_size: int,
        mesh: Mesh,
    ) -> None:
        self.files = files
        self._images, self._rows, self._mesh = images, rows, mesh
        self._batch_size = batch_size
        self._spread = NamedSharding(mesh, PartitionSpec("data"))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._gather = jax.jit(partial(_gather, mesh=mesh), out_shardings=self._spread)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.files) // self._batch_size)

    def epoch(self, order: np.ndarray | None = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
          order: of the samples, int `[len(files)]`; that of the files by default.
          first: the batch to begin with.
        """
        index, mask = batch_indices(len(self.files), self._batch_size, self._mesh.size, order)
        if isinstance(self._images, jax.Array):
            return self._from_devices(index, mask, first)
        return self._from_host(index, mask, first)

    def _from_host(self, index: np.ndarray, mask: np.ndarray, first: int) -> Iterator[Batch]:
        sent: collections.deque[Batch] = collections.deque()
        for i in range(first, len(index)):
            batch = {
                "image": self._images[self._rows[index[i]]],
                "label": self.files.labels[index[i]],
                "index": index[i],
                "mask": mask[i],
            }
            sent.append(jax.device_put(batch, self._spread))
            if len(sent) > AHEAD:
                yield sent.popleft()
        yield from sent

    def _from_devices(self, index: np.ndarray, mask: np.ndarray, first: int) -> Iterator[Batch]:
        arrays = {"label": self.files.labels, "row": self._rows, "index": index, "mask": mask}
        arrays = jax.device_put(arrays, self._replicated)
        for i in range(first, len(index)):
            yield self._gather(self._images, arrays, np.int32(i))


def _gather(
    images: UInt8[Array, "m size size 3"],
    arrays: dict[str, jax.Array],
    i: Int[Array, ""],
    mesh: Mesh,
) -> Batch:
    """Batch `i`: every device gives the images it has, and gets its share of the batch."""

    def local(images: jax.Array, rows: jax.Array) -> jax.Array:
        place = rows - jax.lax.axis_index("data") * len(images)
        mine = (place >= 0) & (place < len(images))
        found = jnp.where(mine[:, None, None, None], images[place], 0)
        return jax.lax.psum_scatter(found, "data", tiled=True)

    index, mask = arrays["index"][i], arrays["mask"][i]
    spread, same = PartitionSpec("data"), PartitionSpec()
    gather = jax.shard_map(local, mesh=mesh, in_specs=(spread, same), out_specs=spread)
    image = gather(images, arrays["row"][index])
    return {"image": image, "label": arrays["label"][index], "index": index, "mask": mask}


def epoch_order(num_images: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """A permutation of the split that depends on the seed and the epoch only."""
    return np.random.default_rng([seed, epoch]).permutation(num_images)


def batch_indices(
    num_images: int, batch_size: int, num_devices: int = 1, order: np.ndarray | None = None
) -> tuple[Int[np.ndarray, "steps batch"], Bool[np.ndarray, "steps batch"]]:
    """Which sample is where in an epoch.

    Args:
      num_images: in the split.
      batch_size: samples in a batch.
      num_devices: a batch is padded to a multiple of it.
      order: of the samples.

    Returns:
      Places in the split, and the mask: padding repeats other samples and must not count.
    """
    order = np.arange(num_images) if order is None else order
    steps, width = -(-num_images // batch_size), -(-batch_size // num_devices) * num_devices
    index = np.resize(order, (steps, batch_size))
    mask = np.arange(index.size).reshape(index.shape) < num_images
    padding = width - batch_size
    index = np.concatenate([index, index[:, :1].repeat(padding, axis=1)], axis=1)
    return index.astype(np.int32), np.pad(mask, ((0, 0), (0, padding)))


@dataclasses.dataclass(frozen=True)
class Splits:
    """The splits, decoded.

    Attributes:
      train: the training images.
      validation: the validation images; the same object for a split of 'none'.
      test: the test images, if there are any.
      num_skipped: files that were left out because they could not be decoded.
    """

    train: Batches
    validation: Batches
    test: Batches | None
    num_skipped: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names, shared by the splits."""
        return self.train.files.class_names

    @property
    def files(self) -> Files:
        """The files of each split, those left out excepted."""
        test = None if self.test is None else self.test.files
        return Files(self.train.files, self.validation.files, test)

    @property
    def num_images(self) -> int:
        """Images that an epoch sees: of training and validation."""
        return len(self.train.files) + len(self.validation.files)


def load(files: Files, config: ConfigDict, workdir: Path, mesh: Mesh) -> Splits:
    """Decodes the splits to where they are kept.

    Args:
      files: those of each split; one object that is two splits is decoded once.
      config: of the run.
      workdir: the run folder, whose disk the cache 'disk' takes.
      mesh: the devices.

    Raises:
      UserError: naming every bad file, if `config.data.on_bad_image` is 'error'; or nothing is
        left.
    """
    size, cache = config.image_size, config.data.cache
    turn = config.data.exif_orientation
    if cache == "auto":
        cache = choose_cache(sum(len(images) for images in files if images), size)
    log.info("decoded images are kept: %s", cache)
    decoders: dict[str, Callable[..., tuple[Any, dict[int, str]]]] = {
        "device": partial(_decode_to_devices, mesh=mesh, exif_orientation=turn),
        "host": partial(decode.decode, exif_orientation=turn),
        "disk": partial(decode.decode, allocate=on_disk(workdir), exif_orientation=turn),
    }
    start = time.perf_counter()
    bad: dict[str, str] = {}

    def decoded(split: ImageFolder) -> Batches:
        images, unreadable = decoders[cache](split.paths, size, config.data.resize)
        bad.update({split.paths[i]: why for i, why in unreadable.items()})
        good = np.setdiff1d(np.arange(len(split)), list(unreadable))
        return Batches(split.take(good), images, good, config.batch_size, mesh)

    train = decoded(files.train)
    validation = train if files.validation is files.train else decoded(files.validation)
    test = None if files.test is None else decoded(files.test)
    counts = [len(split.files) for split in {train, validation, test} if split is not None]
    num_images = sum(counts) + len(bad)
    log.info("%d images decoded in %.1f s", num_images, time.perf_counter() - start)
    if bad:
        what = decode.describe_bad(bad, num_images)
        if config.data.on_bad_image == "error":
            raise UserError(
                f"{what}. Repair or remove them, or leave them out with "
                "--config.data.on_bad_image=skip."
            )
        log.warning("%s; they are left out", what)
        if not all(counts):
            raise UserError("no usable image is left in a split; see the images named above.")
    return Splits(train, validation, test, len(bad))


def choose_cache(num_images: int, image_size: int) -> str:
    """Where 'auto' keeps the decoded images.

    On accelerators if they fill at most a quarter of their memory, and whenever several processes
    train together; otherwise in main memory if they fill at most half of it; otherwise on disk.
    """
    num_bytes = num_images * image_size**2 * 3
    if jax.process_count() > 1:
        return "device"
    if jax.default_backend() != "cpu":
        limits = [(d.memory_stats() or {}).get("bytes_limit", 0) for d in jax.local_devices()]
        if num_bytes <= sum(limits) / 4:
            return "device"
    return "host" if num_bytes <= memory_bytes() / 2 else "disk"


# Where Linux tells the memory limit of a container, cgroups version 2 and 1.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_bytes() -> float:
    """Main memory of the machine or of the container; infinite if the system does not tell."""
    limits = [math.inf]
    with contextlib.suppress(AttributeError, OSError, ValueError):  # Windows has no sysconf
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word 'max'
            limits.append(int(path.read_text("utf-8")))
    return min(limits)


def on_disk(folder: Path) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Makes uint8 arrays that live in a file in `folder`; the file goes when the array does."""

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                # A full disk shows here, and not as a crash when a page is written.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, math.prod(shape))
                elif shutil.disk_usage(folder).free < math.prod(shape):  # macOS, Windows
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise UserError(
                    f"{folder} has no room for the decoded images "
                    f"({np.prod(shape) / 1e9:.1f} GB): {error.strerror}."
                ) from error
            return np.memmap(file, np.uint8, "r+", shape=shape)

    return allocate


def _decode_to_devices(
    paths: Sequence[str], image_size: int, resize: str, mesh: Mesh, exif_orientation: bool
) -> tuple[jax.Array, dict[int, str]]:
    """As `decode.decode`, spread over the devices; a process decodes the share of its own."""
    share = -(-len(paths) // mesh.size)
    shape = (share * mesh.size, image_size, image_size, 3)
    bad: dict[int, str] = {}

    def decode_share(index: Any) -> np.ndarray:  # noqa: ANN401
        first = index[0].start or 0
        share_paths = paths[first : first + share]
        images, unreadable = decode.decode(
            share_paths, image_size, resize, exif_orientation=exif_orientation
        )
        bad.update({first + i: why for i, why in unreadable.items()})
        padding = np.zeros((share - len(images), *shape[1:]), np.uint8)
        return np.concatenate([images, padding])

    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images = jax.make_array_from_callback(shape, sharding, decode_share)
    if jax.process_count() > 1:
        is_bad = np.isin(np.arange(len(paths)), list(bad))
        anywhere = multihost_utils.process_allgather(is_bad).any(axis=0)
        bad = {i: decode.reason(paths[i]) for i in np.flatnonzero(anywhere).tolist()}
    return images, bad
