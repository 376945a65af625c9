import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from flowers_jax.data import folder, pipeline
from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError


def picture(mode="RGB", size=(24, 24)):
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("a.png", "RGB", 0),
        ("a.png", "L", 0),
        ("a.png", "P", 0),
        ("a.bmp", "RGB", 0),
        ("a.gif", "P", 0),
        # TensorFlow takes libjpeg's fast inverse transform, Pillow the accurate one.
        ("a.jpg", "RGB", 16),
        ("a.jpg", "L", 16),
        ("a.jpg", "CMYK", 16),
    ],
)
def test_every_kind_of_file_becomes_the_rgb_that_pillow_sees(tmp_path, name, mode, tolerance):
    path = tmp_path / name
    picture(mode).save(path, **({"quality": 95} if name.endswith("jpg") else {}))
    images, bad = pipeline.decode([str(path)], 24, "bilinear")
    assert not bad
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"), np.int32)
    assert np.abs(images[0] - expected).max() <= tolerance


def test_decoding_says_nothing(tmp_path, capfd):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png", "c.bmp", "d.gif", "E.JPG")]
    for path in paths:
        image.save(path)
    pipeline.import_tensorflow()  # which may have something to say
    capfd.readouterr()
    _, bad = pipeline.decode(paths, 8, "bilinear")
    assert not bad
    assert capfd.readouterr().err == ""


def test_transparency_is_dropped_not_blended(tmp_path):
    image = picture("RGBA")
    image.putalpha(100)
    image.save(tmp_path / "a.png")
    images, _ = pipeline.decode([str(tmp_path / "a.png")], 24, "bilinear")
    np.testing.assert_array_equal(images[0], np.asarray(image)[..., :3])


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    images, _ = pipeline.decode([str(tmp_path / "a.gif")], 8, "bilinear")
    assert (images[0] == [255, 0, 0]).all()


def test_bilinear_pixels_are_those_of_keras(tmp_path):
    import keras

    for k, size in enumerate([(37, 53), (80, 41), (16, 16)]):
        (tmp_path / str(k)).mkdir()
        picture(size=size).save(tmp_path / str(k) / "x.png")
    index = folder.scan(tmp_path)
    ours, _ = pipeline.decode(index.paths, 20, "bilinear")
    theirs = keras.utils.image_dataset_from_directory(
        tmp_path, image_size=(20, 20), shuffle=False, verbose=False
    )
    expected = np.concatenate([images for images, _ in theirs.as_numpy_iterator()])
    assert np.abs(ours - expected).max() <= 0.5001


def test_real_images_and_their_order_are_those_of_keras(flowers_dir):
    import keras

    index = folder.scan(flowers_dir)
    _, validation = folder.keras_split(index, 0.2, 1337)
    theirs = keras.utils.image_dataset_from_directory(
        flowers_dir, validation_split=0.2, subset="validation", seed=1337, verbose=False
    )
    assert list(validation.paths) == theirs.file_paths
    ours, bad = pipeline.decode(index.paths[:200], 150, "bilinear")
    assert not bad
    unshuffled = keras.utils.image_dataset_from_directory(
        flowers_dir, image_size=(150, 150), batch_size=200, shuffle=False, verbose=False
    )
    assert list(index.paths) == unshuffled.file_paths
    expected, _ = next(unshuffled.as_numpy_iterator())
    assert np.abs(ours - expected).max() <= 0.5001


def test_real_images_without_smoothing_are_those_of_flow_from_directory(flowers_dir):
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    index = folder.scan(flowers_dir)
    theirs = ImageDataGenerator().flow_from_directory(
        flowers_dir, target_size=(150, 150), batch_size=200, shuffle=False, class_mode="sparse"
    )
    assert list(index.paths) == theirs.filepaths
    ours, bad = pipeline.decode(index.paths[:200], 150, "nearest")
    assert not bad
    expected, labels = next(theirs)
    assert np.abs(ours - expected).max() <= 1
    np.testing.assert_array_equal(index.labels[:200], labels)


def test_nearest_pixels_are_those_of_pillow(tmp_path):
    picture(size=(37, 53)).save(tmp_path / "x.png")
    ours, _ = pipeline.decode([str(tmp_path / "x.png")], 20, "nearest")
    expected = picture(size=(37, 53)).resize((20, 20), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(ours[0], np.asarray(expected))


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
    picture().save(tmp_path / "scan.tif")
    (tmp_path / "scan.tif").rename(tmp_path / "scan.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    paths = tuple(sorted(map(str, tmp_path.iterdir())))
    return ImageFolder(paths, np.arange(10, dtype=np.int32), tuple("abcdefghij"))


def test_all_bad_images_are_named_at_once_with_a_reason(damaged):
    with pytest.raises(UserError) as error:
        pipeline.load(damaged, damaged, 8, "bilinear", "error")
    message = str(error.value)
    assert "5 of 10 images" in message
    for part in (
        "empty.jpg' is empty",
        "text.jpg' is no image",
        "cut.jpg' is truncated or damaged",
        "scan.jpg' is damaged or of a kind that is not supported (TIFF)",
        "gone.jpg' is a link to nothing",
        "on_bad_image=skip",
    ):
        assert part in message


def test_bad_images_can_be_left_out(damaged, caplog):
    train, _, left_out = pipeline.load(damaged, damaged, 24, "bilinear", "skip")
    assert left_out == 5
    assert [path.rsplit("/")[-1][:4] for path in train.files.paths] == ["good"] * 5
    assert train.files.labels.tolist() == [
        i for i, path in enumerate(damaged.paths) if "good" in path
    ]
    np.testing.assert_array_equal(train.images[train.rows], [np.asarray(picture())] * 5)
    assert "cut.jpg" in caplog.text


def numbered_split(n):
    """`n` images; every pixel of image i is i, its label 2 i."""
    images = np.tile(np.arange(n, dtype=np.uint8)[:, None, None, None], (1, 4, 4, 3))
    files = ImageFolder(tuple(map(str, range(n))), 2 * np.arange(n, dtype=np.int32), ())
    return pipeline.Split(files, images, np.arange(n))


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (3, 4), (9, 4)])
def test_every_sample_counts_once_and_keeps_its_label(n, batch_size):
    order = pipeline.epoch_order(n, seed=0, epoch=1)
    epoch = list(pipeline.batches(numbered_split(n), batch_size, order))
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


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        key: tuple(pipeline.epoch_order(50, *key)) for key in itertools.product(range(3), range(3))
    }
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == tuple(pipeline.epoch_order(50, 1, 2))


def test_prefetching_changes_nothing():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    plain = list(pipeline.batches(numbered_split(11), 4))
    fetched = list(pipeline.prefetch_to_device(iter(plain), sharding))
    assert len(fetched) == 3
    jax.tree.map(np.testing.assert_array_equal, fetched, plain)
