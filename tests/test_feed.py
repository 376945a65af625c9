import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from flowers_jax import results
from flowers_jax.data import feed, pipeline
from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError
from flowers_jax.train import train_and_evaluate

MESH = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def numbered_split(n, skipped=0):
    """`n` images after `skipped` others; every pixel of image i is i, its label 2 i."""
    rows = np.arange(skipped, skipped + n)
    images = np.full((skipped + n, 4, 4, 3), 255, np.uint8)
    images[rows] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    files = ImageFolder(tuple(map(str, range(n))), 2 * np.arange(n, dtype=np.int32), ())
    return pipeline.Split(files, images, rows)


@pytest.mark.parametrize("first", [0, 2])
def test_both_feeds_give_a_step_the_same_batches(first):
    split, order = numbered_split(11, skipped=3), pipeline.epoch_order(11, 0, 1)
    seen = {}
    for kind in (feed.HostFeed, feed.DeviceFeed):
        made = kind(split, 4, MESH)
        taken = []

        def note(*values, taken=taken):
            taken.append(values)

        def step(count, batch, note=note):
            values = (batch["image"][:, 0, 0, 0], batch["label"], batch["index"], batch["mask"])
            jax.debug.callback(note, *values, ordered=True)
            return count + 1

        count, loop = 0, jax.jit(made.loop(step))
        for num_steps, batches in made.epoch(order, first):
            before = int(count)
            count = loop(count, batches)
            assert int(count) == before + num_steps
        jax.effects_barrier()
        assert int(count) == 3 - first
        seen[kind] = np.array(taken)
    np.testing.assert_array_equal(*seen.values())
    pixel, label, index, mask = np.moveaxis(seen[feed.DeviceFeed], 1, 0)
    assert index[mask.astype(bool)].tolist() == order[4 * first :].tolist()
    np.testing.assert_array_equal(pixel, index)
    np.testing.assert_array_equal(label, 2 * index)


def test_the_device_feed_gives_the_split_as_it_is():
    made = feed.DeviceFeed(numbered_split(6), 4, MESH)
    batches = jax.device_get(list(made.batches()))
    mask = np.concatenate([batch["mask"] for batch in batches])
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.dtype == np.uint8
    assert images[mask][:, 0, 0, 0].tolist() == list(range(6))


@pytest.mark.parametrize("cache", ["device", "disk"])
def test_every_cache_gives_the_same_history(tiny_config, tmp_path, image_folder, cache):
    (image_folder / "red" / "broken.png").write_bytes(b"")
    tiny_config.data.on_bad_image = "skip"
    for name in ("host", cache):
        tiny_config.data.cache = name
        train_and_evaluate(tiny_config, tmp_path / name)
    histories = [results.read_history(tmp_path / name) for name in ("host", cache)]
    for ours, theirs in zip(*histories, strict=True):
        del ours["seconds"], theirs["seconds"]
        assert ours == pytest.approx(theirs, rel=1e-5)
    probabilities = [
        np.genfromtxt(tmp_path / name / "predictions.csv", delimiter=",", skip_header=1)[:, 3:]
        for name in ("host", cache)
    ]
    np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-6)


def test_the_cache_is_chosen_by_size():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    image = 1000 * 1000 * 3
    assert feed.choose_cache(int(0.4 * memory / image), 1000) == "host"
    assert feed.choose_cache(int(0.6 * memory / image), 1000) == "disk"


def test_a_disk_without_room_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no room for the decoded images \(\d+\.\d GB\)"):
        feed.on_disk(tmp_path)((2**40, 1000, 1000, 3))


DISK_SCRIPT = """
import sys
from pathlib import Path
from flowers_jax.data import feed, folder, pipeline
pipeline.decode([], 8, "bilinear")
paths = folder.scan(sys.argv[1]).paths * int(sys.argv[2])
images, _ = pipeline.decode(paths, 400, "bilinear", feed.on_disk(Path(sys.argv[1])))
assert images.nbytes == len(paths) * 480_000
print(Path("/proc/self/status").read_text())
"""


@pytest.mark.slow
def test_on_disk_a_split_takes_no_memory(image_folder):
    # 60 and 1200 images: 29 and 576 MB.
    anonymous = []
    for repeats in (1, 20):
        done = subprocess.run(
            [sys.executable, "-c", DISK_SCRIPT, image_folder, str(repeats)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        anonymous.append(int(re.search(r"RssAnon:\s+(\d+)", done.stdout)[1]))
    assert anonymous[1] - anonymous[0] < 100_000  # kilobytes
