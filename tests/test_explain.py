"""The command, as a user runs it."""

import commands
from PIL import Image

import flowers_jax


def test_a_picture_of_each_image_is_written(tiny_config, image_folder, tmp_path):
    tiny_config.max_epochs = 1
    flowers_jax.fit(tiny_config, tmp_path / "run")
    paths = [image_folder / "red" / "0.png", image_folder / "blue" / "0.png"]
    done = commands.run("explain", f"--workdir={tmp_path / 'run'}", "--class=red", *paths)
    assert done.returncode == 0, done.stderr
    written = sorted((tmp_path / "run" / "grad_cam").iterdir())
    assert [path.name for path in written] == ["0_red.png", "0_red_1.png"]
    with Image.open(written[0]) as overlay:
        assert overlay.size == (36, 40)
    for wrong, message in (
        ("--class=rose", "has no class 'rose'; choose one of blue, green, red"),
        ("--layer=Dense_0", "no layer 'Dense_0' with height and width"),
    ):
        done = commands.run("explain", f"--workdir={tmp_path / 'run'}", wrong, paths[0])
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_folder_without_weights_is_said_in_a_sentence(tmp_path):
    done = commands.run("explain", f"--workdir={tmp_path}", "a.png")
    assert done.returncode == 2
    assert "is not a run folder" in done.stderr
