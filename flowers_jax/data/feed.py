"""From a decoded split to the steps of an epoch: from the devices' memory, or batch by batch.

Both feeds give the steps the same batches in the same order.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flowers_jax.data import pipeline
from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError

CACHES = ("auto", "device", "host", "disk")
# Steps between two looks at the outside, for signals and the progress bar.
STEPS_PER_CALL = 32

log = logging.getLogger(__name__)

Batch = dict[str, jax.Array]
# (carry, batch, ...) -> carry
Step = Callable[..., Any]


def choose_cache(num_images: int, image_size: int) -> str:
    """Where so many decoded images are kept when the config says 'auto'.

    On accelerators if they take at most a quarter of its memory and with several processes;
    otherwise in main memory if they take at most half of it; otherwise on disk.
    """
    num_bytes = num_images * image_size**2 * 3
    if jax.process_count() > 1:
        return "device"
    if jax.default_backend() != "cpu":
        limits = [(d.memory_stats() or {}).get("bytes_limit", 0) for d in jax.local_devices()]
        if num_bytes <= sum(limits) / 4:
            return "device"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return "host" if num_bytes <= memory / 2 else "disk"


def on_disk(folder: Path) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Makes uint8 arrays that live in a file in `folder`, which goes with them."""

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                # A full disk shows here, and not as a crash when a page is written.
                os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)))
            except OSError as error:
                raise UserError(
                    f"{folder} has no room for the decoded images "
                    f"({np.prod(shape) / 1e9:.1f} GB): {error.strerror}."
                ) from error
            return np.memmap(file, np.uint8, "r+", shape=shape)

    return allocate


class HostFeed:
    """Batches from an array in main memory or on disk, sent to the devices ahead of their use."""

    def __init__(self, split: pipeline.Split, batch_size: int, mesh: Mesh) -> None:
        self.files = split.files
        self._split = split
        self._batch_size = batch_size
        self._mesh = mesh

    def epoch(self, order: np.ndarray | None = None, first: int = 0) -> Iterator[tuple[int, Batch]]:
        """What `loop(step)` takes, and how many steps it takes with it.

        Args:
          order: of the samples, see `pipeline.plan`.
          first: the step to begin with.
        """
        epoch = pipeline.batches(self._split, self._batch_size, order, first)
        num_axes = 1 if order is None else order.ndim
        for batch in pipeline.prefetch_to_device(epoch, _spread(self._mesh, num_axes)):
            yield 1, batch

    def loop(self, step: Step) -> Step:
        """`step`, which takes a batch, as a function that takes what `epoch` yields."""
        return step

    def batches(self) -> Iterator[Batch]:
        """The batches of the split as it is."""
        return (batch for _, batch in self.epoch())


class DeviceFeed:
    """The split as an array spread over all devices, and an epoch as a loop that runs there."""

    def __init__(self, split: pipeline.Split, batch_size: int, mesh: Mesh) -> None:
        self.files = split.files
        self._batch_size = batch_size
        self._mesh = mesh
        self._replicated = NamedSharding(mesh, PartitionSpec())
        small = {"labels": split.files.labels, "rows": split.rows}
        self._arrays = {"images": split.images} | jax.device_put(small, self._replicated)

    def epoch(self, order: np.ndarray | None = None, first: int = 0) -> Iterator[tuple[int, Batch]]:
        """As `HostFeed.epoch`."""
        index, mask = pipeline.plan(len(self.files), self._batch_size, order)
        plan = jax.device_put({"index": index, "mask": mask}, self._replicated)
        for start in range(first, len(index), STEPS_PER_CALL):
            stop = min(start + STEPS_PER_CALL, len(index))
            bounds = {"start": np.int32(start), "stop": np.int32(stop)}
            yield stop - start, self._arrays | plan | bounds

    def loop(self, step: Step) -> Step:
        """`step` over the steps from `start` to `stop`."""

        def run(carry: Any, epoch: Batch, *rest: Any) -> Any:  # noqa: ANN401
            def body(i: jax.Array, carry: Any) -> Any:  # noqa: ANN401
                return step(carry, self._batch(epoch, i), *rest)

            return jax.lax.fori_loop(epoch["start"], epoch["stop"], body, carry)

        return run

    def batches(self) -> Iterator[Batch]:
        """As `HostFeed.batches`."""
        take = jax.jit(self._batch)
        for num_steps, epoch in self.epoch():
            for i in range(num_steps):
                yield take(epoch, epoch["start"] + i)

    def _batch(self, epoch: Batch, i: jax.Array) -> Batch:
        index, mask = epoch["index"][i], epoch["mask"][i]
        image = self._take(epoch["images"], epoch["rows"][index].ravel())
        image = image.reshape(*index.shape, *image.shape[1:])
        batch = {"image": image, "label": epoch["labels"][index], "index": index, "mask": mask}
        return jax.lax.with_sharding_constraint(batch, _spread(self._mesh, index.ndim))

    def _take(self, images: jax.Array, index: jax.Array) -> jax.Array:
        """The rows `index`: every device gives those it has, and gets its share of the batch."""

        def local(images: jax.Array, index: jax.Array) -> jax.Array:
            place = index - jax.lax.axis_index("data") * len(images)
            mine = (place >= 0) & (place < len(images))
            rows = jnp.where(mine[:, None, None, None], images[place], 0)
            return jax.lax.psum_scatter(rows, "data", tiled=True)

        spread, same = PartitionSpec("data"), PartitionSpec()
        return jax.shard_map(local, mesh=self._mesh, in_specs=(spread, same), out_specs=spread)(
            images, index
        )


def _spread(mesh: Mesh, num_axes: int) -> NamedSharding:
    """The last of these axes, over samples, split among the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (num_axes - 1), "data"))


def load(
    train: ImageFolder,
    validation: ImageFolder,
    image_size: int,
    resize: str,
    on_bad_image: str,
    batch_size: int,
    cache: str,
    workdir: Path,
    mesh: Mesh,
) -> tuple[HostFeed | DeviceFeed, HostFeed | DeviceFeed, int]:
    """Decodes both splits, once if they are the same object, to where they are kept.

    Args:
      train: the training files.
      validation: the validation files.
      image_size: height and width.
      resize: 'bilinear' or 'nearest'.
      on_bad_image: 'error', or 'skip' to leave out the files that cannot be decoded.
      batch_size: images in a batch.
      cache: one of `CACHES`.
      workdir: whose disk the cache 'disk' takes.
      mesh: of the devices, with the axis `data`.

    Returns:
      The training feed, the validation feed and the number of files left out.

    Raises:
      UserError: naming every bad file, if `on_bad_image` is 'error'; or nothing is left.
    """
    if cache == "auto":
        cache = choose_cache(len(train) + len(validation), image_size)
    log.info("decoded images are kept: %s", cache)
    if cache == "device":
        decode = partial(_decode_to_devices, mesh=mesh)
    else:
        allocate = pipeline.in_memory if cache == "host" else on_disk(workdir)
        decode = partial(pipeline.decode, allocate=allocate)
    *splits, num_skipped = pipeline.load(
        train, validation, image_size, resize, on_bad_image, decode
    )
    kind = DeviceFeed if cache == "device" else HostFeed
    return (*(kind(split, batch_size, mesh) for split in splits), num_skipped)


def _decode_to_devices(
    paths: Sequence[str], image_size: int, resize: str, mesh: Mesh
) -> tuple[jax.Array, dict[int, str]]:
    """As `pipeline.decode`, spread over the devices; a process decodes the share of its own."""
    share = -(-len(paths) // mesh.size)
    shape = (share * mesh.size, image_size, image_size, 3)
    bad = {}

    def decode(index: tuple[slice, ...]) -> np.ndarray:
        first = index[0].start or 0
        images, unreadable = pipeline.decode(paths[first : first + share], image_size, resize)
        bad.update({first + i: reason for i, reason in unreadable.items()})
        padding = np.zeros((share - len(images), *shape[1:]), np.uint8)
        return np.concatenate([images, padding])

    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images = jax.make_array_from_callback(shape, sharding, decode)
    if jax.process_count() > 1:
        is_bad = np.isin(np.arange(len(paths)), list(bad))
        anywhere = multihost_utils.process_allgather(is_bad).any(axis=0)
        bad = {int(i): pipeline.reason(paths[i]) for i in np.flatnonzero(anywhere)}
    return images, bad
