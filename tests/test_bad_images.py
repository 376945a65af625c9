"""Broken and odd files: each is read right or named, never a crash, never silently wrong."""

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import encoded, picture

from flowers_jax.data import decode, folder
from flowers_jax.process.errors import UserError

SIZE = 24
# Markers of a JPEG file in the order Pillow writes them.
MARKERS = {"SOI": 0xD8, "APP0": 0xE0, "DQT": 0xDB, "SOF0": 0xC0, "DHT": 0xC4, "SOS": 0xDA}


def pixels(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"), np.int32)


def png_header(width, height):
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


def jpeg_of_size(width, height):
    content = bytearray(encoded("JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def exif_rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to show
    return encoded("JPEG", exif=exif, quality=95)


def deep_png(scale):
    """Grey values times `scale` in 16 bits; 257 fills them."""
    grey = np.asarray(picture("L"), np.uint16) * scale
    return encoded("PNG", Image.fromarray(grey))


def gif_smaller_than_its_canvas():
    """The first frame covers a corner of the canvas."""
    content = bytearray(encoded("GIF", picture("P", size=(10, 8))))
    content[6:10] = struct.pack("<HH", SIZE, SIZE)
    return bytes(content)


def palette_with_alpha():
    return encoded("PNG", picture("P"), transparency=bytes(range(256)))


def animated_gif():
    return encoded("GIF", picture("P"), save_all=True, append_images=[picture("P", seed=2)])


def bmp_top_down():
    """Rows from top to bottom are marked by a negative height."""
    content = bytearray(encoded("BMP"))
    start = struct.unpack_from("<I", content, 10)[0]
    struct.pack_into("<i", content, 22, -SIZE)
    rows = [content[start + i * SIZE * 3 :][: SIZE * 3] for i in range(SIZE)]
    return bytes(content[:start]) + b"".join(rows[::-1])


JPEG = encoded("JPEG", quality=95)
TRUNCATED = {
    f"truncated_at_{name}.jpg": JPEG[: JPEG.index(bytes([0xFF, marker])) + 2]
    for name, marker in MARKERS.items()
}
# What must be named, with the words that name it.
BAD = {
    **dict.fromkeys(TRUNCATED, "is"),  # no image, or truncated
    "half_a_scan.jpg": "is truncated or damaged",
    "empty.jpg": "is empty",
    "text.jpg": "is not an image",
    "svg.png": "is not an image",
    "zeros.bmp": "is not an image",
    "half.png": "is truncated or damaged",
    "half.gif": "is",
    "half.bmp": "is",
    "bad_checksum.png": "is truncated or damaged",
    "float.tif": "has 32 bits per channel",
    "twelve_of_sixteen.png": "uses only the lower 12 of its 16 bits",
    "bomb.png": "has more than 50 megapixels",
    "bomb.jpg": "has more than 50 megapixels",
    "bomb.gif": "has more than 50 megapixels",
    "bomb.bmp": "has more than 50 megapixels",
    "bomb_51.png": "has more than 50 megapixels",
    "dangling.jpg": "is a link to nothing",
    "pipe.jpg": "is not a file",
    "socket.jpg": "is not a file",
    "device.jpg": "is not a file",
}
CONTENT = {
    **TRUNCATED,
    "half_a_scan.jpg": JPEG[: (JPEG.index(b"\xff\xda") + len(JPEG)) // 2],
    "empty.jpg": b"",
    "text.jpg": b"not an image, but long enough to be one\n" * 9,
    "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
    "zeros.bmp": bytes(1000),
    "half.png": encoded("PNG")[:300],
    "half.gif": encoded("GIF", picture("P"))[:300],
    "half.bmp": encoded("BMP")[:300],
    "bad_checksum.png": encoded("PNG")[:60] + b"\x55" + encoded("PNG")[61:],
    "float.tif": encoded("TIFF", picture("F")),
    "twelve_of_sixteen.png": deep_png(16),
    "bomb.png": png_header(20000, 20000) + encoded("PNG")[33:],
    "bomb.jpg": jpeg_of_size(20000, 20000),
    "bomb.gif": b"GIF89a" + struct.pack("<HH", 20000, 20000) + encoded("GIF", picture("P"))[10:],
    "bomb.bmp": encoded("BMP")[:18] + struct.pack("<ii", 20000, -20000) + encoded("BMP")[26:],
    "bomb_51.png": png_header(5100, 10000) + encoded("PNG")[33:],
}
# What must be read right, and how far from Pillow's pixels it may be.
GOOD = {
    "plain.jpg": (JPEG, 16),
    "progressive.jpg": (encoded("JPEG", progressive=True, quality=95), 16),
    "grey.jpg": (encoded("JPEG", picture("L"), quality=95), 16),
    "cmyk.jpg": (encoded("JPEG", picture("CMYK"), quality=95), 16),
    "exif.jpg": (exif_rotated(), 16),
    "ends_with_rubbish.jpg": (JPEG + b"rubbish" * 99, 16),
    "UPPER.JPEG": (JPEG, 16),
    "png_inside.jpg": (encoded("PNG"), 0),
    "jpeg_inside.png": (JPEG, 16),
    "gif_inside.bmp": (encoded("GIF", picture("P")), 0),
    "one_bit.png": (encoded("PNG", picture("1")), 0),
    "grey_alpha.png": (encoded("PNG", picture("LA")), 0),
    "rgba.png": (encoded("PNG", picture("RGBA")), 0),
    "palette.png": (encoded("PNG", picture("P")), 0),
    "palette_alpha.png": (palette_with_alpha(), 0),
    "animated.gif": (animated_gif(), 0),
    "grey.gif": (encoded("GIF", picture("L")), 0),
    "corner.gif": (gif_smaller_than_its_canvas(), 0),
    "plain.bmp": (encoded("BMP"), 0),
    "palette.bmp": (encoded("BMP", picture("P")), 0),
    "grey.bmp": (encoded("BMP", picture("L")), 0),
    "webp.jpg": (encoded("WEBP", lossless=True), 0),
    "picture.webp": (encoded("WEBP"), 0),
    "tiff.png": (encoded("TIFF"), 0),
    "cmyk.tif": (encoded("TIFF", picture("CMYK")), 0),
    "top_down.bmp": (bmp_top_down(), 0),
    "with space.png": (encoded("PNG"), 0),
    "new\nline.png": (encoded("PNG"), 0),
    "rosé 花.png": (encoded("PNG"), 0),
    os.fsdecode(b"not utf-8 \xff.png"): (encoded("PNG"), 0),
    "100% 'quoted' \"twice\" \\.png": (encoded("PNG"), 0),
    "n" * 240 + ".png": (encoded("PNG"), 0),
}


@pytest.fixture
def corpus(tmp_path):
    """A class folder with all of them, and one with good images."""
    odd = tmp_path / "images" / "odd"
    odd.mkdir(parents=True)
    for name, content in [*CONTENT.items(), *((n, c) for n, (c, _) in GOOD.items())]:
        (odd / name).write_bytes(content)
    (odd / "dangling.jpg").symlink_to("nowhere.jpg")
    (odd / "device.jpg").symlink_to("/dev/zero")
    (odd / "link.jpg").symlink_to("plain.jpg")
    os.mkfifo(odd / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(odd / "socket.jpg"))
    (odd / "folder.jpg").mkdir()
    (odd / "picture.svg").write_bytes(CONTENT["svg.png"])
    (tmp_path / "images" / "plain").mkdir()
    (tmp_path / "images" / "plain" / "a.png").write_bytes(encoded("PNG"))
    return tmp_path / "images"


@pytest.mark.parametrize("resize", decode.RESIZES)
def test_each_is_read_right_or_named(corpus, caplog, resize):
    index = folder.scan(corpus)
    names = [os.path.basename(path) for path in index.paths]
    assert len(names) > 40
    for name in ("picture.svg", "link.jpg"):
        assert name not in names
        assert name in caplog.text
    images, bad = decode.decode(index.paths, SIZE, resize)
    named = {names[i]: reason for i, reason in bad.items()}
    assert named.keys() == BAD.keys()
    for name, words in BAD.items():
        assert words in named[name], (name, named[name])
    for name, (content, tolerance) in GOOD.items():
        difference = np.abs(images[names.index(name)] - pixels(content)).max()
        assert difference <= tolerance, (name, difference)


def test_sixteen_bits_and_one_pixel(tmp_path):
    (tmp_path / "deep.png").write_bytes(deep_png(257))
    Image.new("RGB", (1, 1), (10, 20, 30)).save(tmp_path / "one.png")
    paths = [str(tmp_path / name) for name in ("deep.png", "one.png")]
    images, bad = decode.decode(paths, SIZE, "bilinear")
    assert not bad
    grey = np.asarray(picture("L"), np.int32)
    assert np.abs(images[0] - grey[..., None]).max() == 0
    assert (images[1] == (10, 20, 30)).all()


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.png"
    # 400 megapixels of zeros in 1.2 MB: complete, and 1.2 GB once it is decoded.
    rows = zlib.compress(bytes(20000 * 60001), 9)
    chunk = b"IDAT" + rows
    body = struct.pack(">I", len(rows)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    path.write_bytes(png_header(20000, 20000) + body + end)
    script = (
        "import resource, sys; from flowers_jax.data import decode\n"
        "decode.import_tensorflow().constant(0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "_, bad = decode.decode([sys.argv[1]], 24, 'bilinear')\n"
        "assert 'megapixels' in bad[0]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # kilobytes


def test_a_folder_that_links_to_itself_is_named(corpus):
    (corpus / "odd" / "again").symlink_to(corpus / "odd")
    (corpus / "odd" / "and again").symlink_to(corpus / "odd")
    with pytest.raises(UserError, match=r"again is a link to .*odd, so its images would count twi"):
        folder.scan(corpus)


@pytest.fixture(scope="module")
def real_jpeg(tmp_path_factory):
    """A photograph where there are some, otherwise a drawn one."""
    if "FLOWERS_DIR" in os.environ:
        with open(folder.scan(os.environ["FLOWERS_DIR"]).paths[0], "rb") as file:
            return file.read()
    return JPEG


# Bytes that are changed, by place (a share of the file) and new value, and where the file is cut.
MUTATION = st.tuples(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)
@given(st.lists(MUTATION, min_size=50, max_size=50))
def test_mutated_photographs_neither_crash_nor_hang(real_jpeg, tmp_path_factory, mutations):
    # 40 times 50 files.
    root = tmp_path_factory.mktemp("mutated")
    paths = []
    for i, (changes, cut) in enumerate(mutations):
        content = bytearray(real_jpeg)
        for place, value in changes:
            content[int(place * len(content))] = value
        paths.append(str(root / f"{i}.jpg"))
        with open(paths[-1], "wb") as file:
            file.write(content[: int(cut * len(content))])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    images, bad = decode.decode(paths, SIZE, "bilinear")
    assert time.monotonic() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kilobytes
    assert all(bad.values())  # a reason for each
    assert images.shape == (50, SIZE, SIZE, 3)


def test_an_exif_orientation_is_counted_and_followed_on_request(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "turned.jpg").write_bytes(exif_rotated())
    (tmp_path / "plain.jpg").write_bytes(JPEG)
    paths = [str(tmp_path / name) for name in ("turned.jpg", "plain.jpg")]
    stored, _ = decode.decode(paths, SIZE, "bilinear")
    assert "1 images have an EXIF orientation: read as they are stored" in caplog.text
    assert np.abs(stored[0].astype(int) - stored[1]).max() == 0
    turned, _ = decode.decode(paths, SIZE, "bilinear", exif_orientation=True)
    # By 90 degrees to the right, within what Pillow's and TensorFlow's decoders differ.
    assert np.abs(turned[0].astype(int) - np.rot90(stored[1], -1)).max() <= 16
    np.testing.assert_array_equal(turned[1], stored[1])


FORMATS = ("PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "TGA", "ICO")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")


def test_pixels_are_pillows_for_every_format_and_mode_that_it_writes(tmp_path):
    expected = {}
    for kind in FORMATS:
        for mode in MODES:
            path = tmp_path / f"{mode}.{kind}"
            try:
                picture(mode).save(path, kind)
                with Image.open(path) as image:
                    expected[str(path)] = np.asarray(image.convert("RGB"))
            except (OSError, ValueError):  # no such mode, or Pillow cannot read what it wrote
                path.unlink(missing_ok=True)
    assert len(expected) > 40
    images, bad = decode.decode(list(expected), SIZE, "bilinear")
    assert not bad
    np.testing.assert_array_equal(images, list(expected.values()))
