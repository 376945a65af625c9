import csv
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from flowers_jax.data import decode, duplicates, folder
from flowers_jax.study import audit


def scene(seed, size=96):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def clean(tmp_path):
    """Two classes of ten different pictures."""
    for k, name in enumerate("ab"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            scene(100 * k + i).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


def test_a_clean_folder_has_nothing_to_report(clean, tmp_path):
    done = commands.run("data.audit", f"--out={tmp_path / 'out'}", clean)
    assert done.returncode == 0, done.stderr
    assert "20 files of 2 classes: a 10, b 10" in done.stdout
    assert "smallest 96x96, median 96x96, largest 96x96" in done.stdout
    assert "0 exact duplicate pairs" in done.stdout
    assert "0 near duplicate pairs" in done.stdout


def test_what_is_twice_or_broken_is_listed(clean, tmp_path):
    (clean / "a" / "copy.png").write_bytes((clean / "a" / "3.png").read_bytes())
    ImageEnhance.Brightness(scene(4).resize((60, 60))).enhance(0.8).save(clean / "b" / "dark.jpg")
    (clean / "b" / "broken.jpg").write_bytes(b"nothing")
    (clean / "b" / "gone.jpg").symlink_to("nowhere")
    done = commands.run("data.audit", f"--out={tmp_path / 'out'}", clean)
    assert "1 exact duplicate pairs: 1 within a class, 0 across classes" in done.stdout
    assert "1 near duplicate pairs: 0 within a class, 1 across classes" in done.stdout
    assert "2 files cannot be read" in done.stdout
    assert "broken.jpg' is not an image" in done.stdout
    assert "gone.jpg' is a link to nothing" in done.stdout
    with open(tmp_path / "out" / "duplicates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["kind"], Path(row["first"]).name, Path(row["second"]).name) for row in rows}
    assert found == {("exact", "3.png", "copy.png"), ("near", "4.png", "dark.jpg")}
    across = [row["across the split"] == "True" for row in rows]
    assert done.returncode == (1 if any(across) else 0)
    with Image.open(tmp_path / "out" / "duplicates.png") as sheet:
        assert sheet.size[0] > 2 * 96


def test_only_a_pair_across_the_split_is_a_leak(clean, tmp_path):
    index = folder.scan(clean)
    sides = audit.split_sides(index)
    training = [p for p, side in zip(index.paths, sides, strict=True) if side == "training"]
    validation = [p for p, side in zip(index.paths, sides, strict=True) if side == "validation"]
    # The names stay, so the split does too.
    Path(training[1]).write_bytes(Path(training[0]).read_bytes())
    assert commands.run("data.audit", f"--out={tmp_path / 'within'}", clean).returncode == 0
    Path(validation[0]).write_bytes(Path(training[0]).read_bytes())
    assert commands.run("data.audit", f"--out={tmp_path / 'across'}", clean).returncode == 1


def test_the_results_do_not_go_into_the_images(clean):
    done = commands.run("data.audit", f"--out={clean / 'out'}", clean)
    assert done.returncode == 2
    assert "out lies in the image folder" in done.stderr
    assert not (clean / "out").exists()


def test_the_sheet_is_bounded(clean, tmp_path, monkeypatch, capsys):
    for i in range(1, 4):
        (clean / "a" / f"{i}.png").write_bytes((clean / "a" / "0.png").read_bytes())
    assert audit.MAX_SHOWN == 100
    monkeypatch.setattr(audit, "MAX_SHOWN", 4)  # of six pairs
    audit.audit(clean, tmp_path / "out")
    assert "the sheet shows 4 pairs and leaves out 2" in capsys.readouterr().out
    assert len((tmp_path / "out" / "duplicates.csv").read_text().splitlines()) == 1 + 6
    with Image.open(tmp_path / "out" / "duplicates.png") as sheet:
        assert sheet.size == (4 * 230, 140)


def test_what_training_cannot_decode_cannot_be_read(clean, tmp_path):
    whole = (clean / "a" / "0.png").read_bytes()
    (clean / "a" / "0.png").write_bytes(whole[: len(whole) // 2])
    (clean / "b" / "empty.png").touch()
    Image.fromarray(np.zeros((8, 8), np.int32)).save(clean / "b" / "deep.tif")
    paths = folder.scan(clean).paths
    _, expected = decode.decode(paths, 8, "bilinear")
    files = duplicates.inspect(paths)
    assert {i: file.problem for i, file in enumerate(files) if file.problem} == expected
    assert len(expected) == 3
    assert all((file.hash is None) == bool(file.problem) for file in files)


def test_a_missing_folder_is_said_in_a_sentence(tmp_path):
    done = commands.run("data.audit", f"--out={tmp_path / 'out'}", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere cannot be read: No such file" in done.stderr
