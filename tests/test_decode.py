import numpy as np
import pytest
from PIL import Image
from support import picture

from flowers_jax.data import decode, folder


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
    images, bad = decode.decode([str(path)], 24, "bilinear")
    assert not bad
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"), np.int32)
    assert np.abs(images[0] - expected).max() <= tolerance


def test_decoding_says_nothing(tmp_path, capfd):
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png", "c.bmp", "d.gif", "E.JPG")]
    for path in paths:
        image.save(path)
    decode.import_tensorflow()  # which may have something to say
    capfd.readouterr()
    _, bad = decode.decode(paths, 8, "bilinear")
    assert not bad
    assert capfd.readouterr().err == ""


def test_transparency_is_dropped_not_blended(tmp_path):
    image = picture("RGBA")
    image.putalpha(100)
    image.save(tmp_path / "a.png")
    images, _ = decode.decode([str(tmp_path / "a.png")], 24, "bilinear")
    np.testing.assert_array_equal(images[0], np.asarray(image)[..., :3])


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    images, _ = decode.decode([str(tmp_path / "a.gif")], 8, "bilinear")
    assert (images[0] == [255, 0, 0]).all()


def test_bilinear_pixels_are_those_of_keras(tmp_path):
    import keras

    for k, size in enumerate([(37, 53), (80, 41), (16, 16)]):
        (tmp_path / str(k)).mkdir()
        picture(size=size).save(tmp_path / str(k) / "x.png")
    index = folder.scan(tmp_path)
    ours, _ = decode.decode(index.paths, 20, "bilinear")
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
    ours, bad = decode.decode(index.paths[:200], 150, "bilinear")
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
    ours, bad = decode.decode(index.paths[:200], 150, "nearest")
    assert not bad
    expected, labels = next(theirs)
    assert np.abs(ours - expected).max() <= 1
    np.testing.assert_array_equal(index.labels[:200], labels)


def test_nearest_pixels_are_those_of_pillow(tmp_path):
    picture(size=(37, 53)).save(tmp_path / "x.png")
    ours, _ = decode.decode([str(tmp_path / "x.png")], 20, "nearest")
    expected = picture(size=(37, 53)).resize((20, 20), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(ours[0], np.asarray(expected))


@pytest.mark.parametrize("resize", decode.RESIZES)
def test_few_images_have_the_same_pixels_without_tensorflow(tmp_path, resize):
    options = [
        *({"quality": 90, "subsampling": subsampling} for subsampling in (0, 1, 2)),
        {"quality": 40, "progressive": True},
    ]
    sizes = [(24, 24), (37, 53), (200, 131), (31, 9)]
    paths = []
    for mode in ("RGB", "L", "CMYK"):
        for k, (option, size) in enumerate(zip(options, sizes, strict=True)):
            paths.append(str(tmp_path / f"{mode}{k}.jpg"))
            picture(mode, size, seed=k).save(paths[-1], **option)
    for k, size in enumerate(sizes):
        paths.append(str(tmp_path / f"{k}.png"))
        picture("P", size, seed=k).save(paths[-1])
    turned = Image.Exif()
    turned[decode.ORIENTATION] = 6
    paths.append(str(tmp_path / "turned.jpg"))
    picture(size=(37, 53)).save(paths[-1], exif=turned)
    # What cannot be read is named in the same words.
    for name, content in {"empty": b"", "text.jpg": b"no image", "cut.jpg": None}.items():
        paths.append(str(tmp_path / name))
        whole = (tmp_path / "RGB2.jpg").read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    for turn in (False, True):
        expected, bad = decode.decode(paths, 24, resize, exif_orientation=turn)
        ours, named = decode.decode_few(paths, 24, resize, turn)
        np.testing.assert_array_equal(ours, expected)
        assert named == bad
        assert len(bad) == 3


@pytest.mark.parametrize(
    ("resize", "size"), [("bilinear", 150), ("bilinear", 224), ("nearest", 150)]
)
def test_few_real_images_have_the_same_pixels_without_tensorflow(flowers_dir, resize, size):
    paths = folder.scan(flowers_dir).paths[::20]
    expected, _ = decode.decode(paths, size, resize)
    ours, bad = decode.decode_few(paths, size, resize)
    assert not bad
    np.testing.assert_array_equal(ours, expected)
