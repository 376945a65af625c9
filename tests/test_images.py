import shutil

import pytest

from flowers_jax.data import folder
from flowers_jax.data.splits import Files
from flowers_jax.process.errors import UserError
from flowers_jax.runs import images


def record(root, workdir):
    images.record(workdir, Files(*folder.keras_split(folder.scan(root), 0.2, 1337)))


def test_the_same_images_elsewhere_are_the_same(image_folder, tmp_path):
    record(image_folder, tmp_path)
    before = (tmp_path / "images.csv").read_text()
    moved = shutil.move(image_folder, tmp_path / "elsewhere")
    record(moved, tmp_path)
    assert (tmp_path / "images.csv").read_text() == before


def test_other_images_are_refused_with_the_first_differences(image_folder, tmp_path):
    record(image_folder, tmp_path)
    (tmp_path / "config.json").touch()
    before = (tmp_path / "images.csv").read_text()
    content = (image_folder / "blue" / "0.png").read_bytes()
    (image_folder / "blue" / "1.png").write_bytes(content)
    with pytest.raises(UserError, match=r"other images \(1 differences: blue/1.png is changed\)"):
        record(image_folder, tmp_path)
    (image_folder / "blue" / "1.png").unlink()
    with pytest.raises(UserError, match=r"other images \(\d+ differences: .*is gone from the"):
        record(image_folder, tmp_path)
    assert (tmp_path / "images.csv").read_text() == before
    # A start that failed before the folder was that of a run does not claim it.
    (tmp_path / "config.json").unlink()
    record(image_folder, tmp_path)
    assert (tmp_path / "images.csv").read_text() != before
