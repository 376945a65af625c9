import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from support import picture, without_seconds

from configs import common
from flowers_jax.data import batches
from flowers_jax.data.batches import Batches
from flowers_jax.data.folder import ImageFolder
from flowers_jax.data.splits import Files
from flowers_jax.process.errors import UserError
from flowers_jax.train import train_and_evaluate
from flowers_jax.trainer import create_mesh


def numbered(n, batch_size, where, skipped=0):
    """`n` images after `skipped` others; every pixel of image i is i, its label 2 i."""
    rows = np.arange(skipped, skipped + n)
    images = np.full((skipped + n, 4, 4, 3), 255, np.uint8)
    images[rows] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    files = ImageFolder(tuple(map(str, range(n))), 2 * np.arange(n, dtype=np.int32), ())
    if where == "device":
        images = jax.device_put(images)
    return Batches(files, images, rows, batch_size, create_mesh())


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (3, 4), (9, 4)])
def test_every_sample_counts_once_and_keeps_its_label(n, batch_size, where):
    order = batches.epoch_order(n, seed=0, epoch=1)
    made = numbered(n, batch_size, where, skipped=3)
    epoch = jax.device_get(list(made.epoch(order)))
    assert len(epoch) == len(made) == -(-n // batch_size)
    assert {batch["image"].shape for batch in epoch} == {(batch_size, 4, 4, 3)}
    image, label, index, mask = (
        np.concatenate([batch[key] for batch in epoch])
        for key in ("image", "label", "index", "mask")
    )
    assert index[mask].tolist() == order.tolist()
    assert sorted(index[mask]) == list(range(n))
    assert (image[:, 0, 0, 0] == index).all()
    assert (label == 2 * index).all()
    assert image.dtype == np.uint8


@pytest.mark.parametrize("first", [0, 1, 3])
def test_wherever_images_are_kept_the_batches_are_the_same_from_any_step_on(first):
    order = batches.epoch_order(11, 0, 1)
    whole = jax.device_get(list(numbered(11, 4, "host").epoch(order)))
    for where in ("host", "device"):
        found = jax.device_get(list(numbered(11, 4, where).epoch(order, first)))
        assert len(found) == 3 - first
        jax.tree.map(np.testing.assert_array_equal, found, whole[first:])


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        key: tuple(batches.epoch_order(50, *key)) for key in itertools.product(range(3), range(3))
    }
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(batches.epoch_order(50, 1, 2))


def test_a_batch_is_padded_to_a_multiple_of_the_devices():
    index, mask = batches.batch_indices(45, 20, num_devices=8)
    assert index.shape == mask.shape == (3, 24)
    assert mask.sum(axis=1).tolist() == [20, 20, 5]
    assert index[mask].tolist() == list(range(45))
    assert 0 <= index.min() <= index.max() < 45


@pytest.mark.parametrize("cache", ["device", "disk"])
def test_every_cache_gives_the_same_history(tiny_config, tmp_path, image_folder, cache):
    (image_folder / "red" / "broken.png").write_bytes(b"")
    tiny_config.data.on_bad_image = "skip"
    for name in ("host", cache):
        tiny_config.data.cache = name
        train_and_evaluate(tiny_config, tmp_path / name)
    histories = [without_seconds(tmp_path / name) for name in ("host", cache)]
    for ours, theirs in zip(*histories, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    probabilities = [
        np.genfromtxt(tmp_path / name / "predictions.csv", delimiter=",", skip_header=1)[:, 3:]
        for name in ("host", cache)
    ]
    np.testing.assert_allclose(*probabilities, rtol=1e-4, atol=1e-6)


def test_the_cache_is_chosen_by_size():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    image = 1000 * 1000 * 3
    assert batches.choose_cache(int(0.4 * memory / image), 1000) == "host"
    assert batches.choose_cache(int(0.6 * memory / image), 1000) == "disk"


def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "unlimited").write_text("max\n")
    monkeypatch.setattr(batches, "CGROUP_LIMITS", (tmp_path / "unlimited", tmp_path / "none"))
    assert batches.memory_bytes() > 1e9
    monkeypatch.setattr(batches, "CGROUP_LIMITS", (tmp_path / "memory.max",))
    assert batches.memory_bytes() == 1_000_000
    assert batches.choose_cache(10, 1000) == "disk"


def test_a_system_without_posix_calls_has_a_cache_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(batches, "CGROUP_LIMITS", ())
    assert batches.choose_cache(10, 1000) == "host"
    images = batches.on_disk(tmp_path)((2, 4, 4, 3))
    images[1] = 7
    assert images.sum() == 7 * 48
    with pytest.raises(UserError, match="no room for the decoded images"):
        batches.on_disk(tmp_path)((2**40, 1000, 1000, 3))


def test_a_disk_without_room_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no room for the decoded images \(\d+\.\d GB\)"):
        batches.on_disk(tmp_path)((2**40, 1000, 1000, 3))


def load(files, tmp_path, on_bad_image):
    config = common.get_config()
    config.image_size, config.data.on_bad_image, config.data.cache = 24, on_bad_image, "host"
    return batches.load(Files(files, files), config, tmp_path, create_mesh())


@pytest.fixture
def damaged(tmp_path):
    """Ten files of which five cannot be used."""
    for i in range(5):
        picture().save(tmp_path / f"good{i}.png")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no image at all")
    picture(size=(90, 90)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "whole.jpg").unlink()
    picture("F").save(tmp_path / "scan.tif")
    (tmp_path / "scan.tif").rename(tmp_path / "scan.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    paths = tuple(sorted(map(str, tmp_path.iterdir())))
    return ImageFolder(paths, np.arange(10, dtype=np.int32), tuple("abcdefghij"))


def test_all_bad_images_are_named_at_once_with_a_reason(damaged, tmp_path):
    with pytest.raises(UserError) as error:
        load(damaged, tmp_path, "error")
    message = str(error.value)
    assert "5 of 10 images" in message
    for part in (
        "empty.jpg' is empty",
        "text.jpg' is not an image",
        "cut.jpg' is truncated or damaged",
        "scan.jpg' has 32 bits per channel",
        "gone.jpg' is a link to nothing",
        "on_bad_image=skip",
    ):
        assert part in message


def test_bad_images_can_be_left_out(damaged, tmp_path, caplog):
    data = load(damaged, tmp_path, "skip")
    assert data.num_skipped == 5
    files = data.train.files
    assert [Path(path).name[:4] for path in files.paths] == ["good"] * 5
    assert files.labels.tolist() == [i for i, path in enumerate(damaged.paths) if "good" in path]
    batch = jax.device_get(next(data.train.epoch()))
    np.testing.assert_array_equal(batch["image"][:5], [np.asarray(picture())] * 5)
    assert batch["mask"].sum() == 5
    assert "cut.jpg" in caplog.text


DISK_SCRIPT = """
import sys
from pathlib import Path
from flowers_jax.data import batches, decode, folder
decode.decode([], 8, "bilinear")
paths = folder.scan(sys.argv[1]).paths * int(sys.argv[2])
images, _ = decode.decode(paths, 400, "bilinear", batches.on_disk(Path(sys.argv[1])))
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
