import os

import numpy as np
import pytest
from support import make_tree

from flowers_jax.data import folder
from flowers_jax.process.errors import UserError


def test_both_splits_are_those_of_keras(tmp_path):
    import keras

    names = [f"b/{i}.jpg" for i in range(13)] + [f"a/{i}.PNG" for i in range(9)]
    names += ["c/x.gif", "c/inner/y.bmp", ".cache/no.jpg"]
    make_tree(tmp_path, names)
    index = folder.scan(tmp_path)
    train, validation = folder.keras_split(index, 0.2, 1337)
    for ours, subset in ((train, "training"), (validation, "validation")):
        theirs = keras.utils.image_dataset_from_directory(
            tmp_path, validation_split=0.2, subset=subset, seed=1337, shuffle=True, verbose=False
        )
        assert [str(p) for p in ours.paths] == theirs.file_paths
        assert list(ours.class_names) == theirs.class_names
        assert [ours.class_names[k] for k in ours.labels] == [
            p[len(str(tmp_path)) + 1 :].split("/")[0] for p in ours.paths
        ]


def test_the_study_split_of_the_real_images(flowers_dir):
    index = folder.scan(flowers_dir)
    assert index.class_names == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert index.counts().tolist() == [764, 1052, 784, 733, 984]
    train, validation = folder.keras_split(index, 0.2, 1337)
    assert len(train) == 3454
    assert validation.counts().tolist() == [137, 234, 151, 150, 191]
    assert set(train.paths).isdisjoint(validation.paths)


def test_a_folder_around_the_class_folders_is_seen_through(tmp_path):
    make_tree(tmp_path, ["flowers/a/1.png", "flowers/b/1.png"])
    assert folder.scan(tmp_path).paths == folder.scan(tmp_path / "flowers").paths


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "holds no class folders"),
        (["x.png"], "holds no class folders"),
        (["a/1.png"], "holds a single class \\(a\\)"),
        (["a/1.png", "b/readme.txt"], "without images \\(b\\)"),
        (["train/a/1.png", "train/b/1.png", "Val/a/1.png"], "split already \\(Val, train\\)"),
        (["a/1.png", "b/1.png", "all/a/1.png", "all/b/1.png"], "all repeats the class folders"),
    ],
)
def test_unusable_folders_are_named(tmp_path, files, message):
    make_tree(tmp_path, [f for f in files if f.endswith("png")])
    for name in files:
        if name.endswith("txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("no image")
    with pytest.raises(UserError, match=message):
        folder.scan(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read: No such file"):
        folder.scan(tmp_path / "nowhere")


def test_files_that_are_not_listed_are_logged(tmp_path, caplog):
    make_tree(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "a" / "flickr.py").write_text("")
    folder.scan(tmp_path)
    assert "flickr.py" in caplog.text


def test_an_empty_split_is_refused(tmp_path):
    make_tree(tmp_path, ["a/1.png", "b/1.png"])
    with pytest.raises(UserError, match="leaves a split empty"):
        folder.keras_split(folder.scan(tmp_path), 0.2, 1337)


def test_take_keeps_paths_and_labels_together(tmp_path):
    make_tree(tmp_path, [f"{k}/{i}.png" for k in "ab" for i in range(3)])
    index = folder.scan(tmp_path)
    taken = index.take(np.array([5, 0]))
    assert taken.paths == (index.paths[5], index.paths[0])
    assert taken.labels.tolist() == [1, 0]


def test_what_systems_leave_among_images_is_ignored_and_said(tmp_path, caplog):
    make_tree(tmp_path, ["pets/cat/1.png", "pets/dog/1.png"])
    expected = folder.scan(tmp_path).paths
    left = ["__MACOSX/pets/cat/._1.png", "pets/cat/.ipynb_checkpoints/1-checkpoint.png"]
    left += ["pets/dog/@eaDir/1.png/SYNOPHOTO_THUMB_M.png", "pets/dog/._1.png"]
    make_tree(tmp_path, left)
    assert folder.scan(tmp_path).paths == expected
    for name in (".ipynb_checkpoints", "@eaDir", "._1.png"):
        assert name in caplog.text


@pytest.mark.parametrize(
    ("link", "target"), [("kitty", "cat"), ("dog/more", "cat"), ("dog/more", "cat/inner")]
)
def test_a_class_that_would_count_twice_is_refused(tmp_path, link, target):
    make_tree(tmp_path, ["cat/1.png", "cat/inner/2.png", "dog/1.png"])
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(UserError, match=f"{link} is a link to .*{target}, so its images would co"):
        folder.scan(tmp_path)


def test_a_link_to_an_image_of_another_class_is_left_out(tmp_path, caplog):
    make_tree(tmp_path, ["cat/1.png", "dog/1.png"])
    (tmp_path / "dog" / "2.png").symlink_to(tmp_path / "cat" / "1.png")
    assert folder.scan(tmp_path).names == ["cat/1.png", "dog/1.png"]
    assert "a link to an image that is listed): dog/2.png" in caplog.text.replace("'", "")


def test_names_do_not_depend_on_where_the_folder_lies(tmp_path):
    for root in (tmp_path / "a", tmp_path / "b" / "flowers"):
        make_tree(root, ["x/1.png", "y/inner/2.png"])
    names = [folder.scan(tmp_path / name).names for name in "ab"]
    assert names[0] == names[1] == ["x/1.png", "y/inner/2.png"]


def test_nothing_is_written_into_an_image_folder(tmp_path):
    folder.require_outside(tmp_path / "runs", tmp_path / "images")
    for target in ("images", "images/runs/x", "images/../images/runs"):
        with pytest.raises(UserError, match="lies in the image folder"):
            folder.require_outside(tmp_path / target, tmp_path / "images")


def test_a_class_folder_that_cannot_be_written_is_named(tmp_path):
    make_tree(tmp_path, ["a/1.png", f"{os.fsdecode(bytes([0xFF]))}/1.png"])
    with pytest.raises(UserError, match=r"udcff' has a name that is not utf-8; rename it"):
        folder.scan(tmp_path)


def test_an_argument_is_a_file_a_folder_or_a_glob(image_folder):
    names = [str(image_folder / f"{colour}/0.png") for colour in ("blue", "green", "red")]
    assert list(folder.image_paths(names[0])) == names[:1]
    assert len(list(folder.image_paths(str(image_folder)))) == 60
    assert len(list(folder.image_paths(str(image_folder / "red")))) == 20
    assert list(folder.image_paths(str(image_folder / "*" / "0.png"))) == names
    odd = image_folder / "red" / "a[1].png"  # a file, though it looks like a glob
    odd.write_bytes(b"")
    assert list(folder.image_paths(str(odd))) == [str(odd)]
    (image_folder / "none").mkdir()
    with pytest.raises(UserError, match="none holds no images"):
        list(folder.image_paths(str(image_folder / "none")))
    with pytest.raises(UserError, match="no file matches"):
        list(folder.image_paths(str(image_folder / "*.jpg")))
    with pytest.raises(UserError, match="an image has an empty name"):
        list(folder.image_paths(""))
