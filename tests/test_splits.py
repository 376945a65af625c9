from pathlib import Path

import numpy as np
import pytest
from support import make_tree, picture

from configs import common
from flowers_jax.data import folder, splits
from flowers_jax.process.errors import UserError

# Images of each class.
COUNTS = {"a": 50, "b": 31, "c": 10}


def data_config(**changes):
    config = common.get_config().data
    config.update(split="stratified", **changes)
    return config


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_tree(root, [f"{name}/{i}.png" for name, n in COUNTS.items() for i in range(n)])
    return folder.scan(root)


def counts(files):
    return [images.counts().tolist() for images in files if images is not None]


def test_holdout_leaks_nothing(tmp_path):
    make_tree(tmp_path, [f"{k}/{i}.png" for k in "abc" for i in range(10)])
    index = folder.scan(tmp_path)
    train, validation = splits.holdout_split(index, 4, 1337)
    assert validation.counts().tolist() == [4, 4, 4]
    assert sorted(train.paths + validation.paths) == sorted(index.paths)
    assert splits.holdout_split(index, 4, 1)[1].paths != validation.paths
    with pytest.raises(UserError, match="class a has 10 images"):
        splits.holdout_split(index, 10, 1337)


def test_leaked_images_are_trained_on_and_still_validate(tmp_path):
    make_tree(
        tmp_path, [f"{k}/{i}.png" for k, n in (("a", 9), ("b", 10), ("c", 11)) for i in range(n)]
    )
    config = common.get_config().data
    config.split, config.holdout_per_class = "holdout", 4
    index = folder.scan(tmp_path)
    clean, validation, _ = splits.split(index, config)
    config.leaked = 4
    leaky, same, _ = splits.split(index, config)
    assert same.paths == validation.paths
    added = set(leaky.paths) - set(clean.paths)
    assert len(leaky) == len(clean) + 4 == len(leaky.labels)
    assert added == set(validation.paths[:4])
    assert {validation.class_names[k] for k in validation.labels[:4]} == {"a"}
    config.leaked = 13
    with pytest.raises(UserError, match="leaked=13, but there are only 12 validation images"):
        splits.split(index, config)


def test_classes_without_images_in_a_split_are_named(tmp_path, caplog):
    make_tree(tmp_path, [f"a/{i}.png" for i in range(20)] + ["b/1.png"])
    config = common.get_config().data
    validation = splits.read(tmp_path, config).validation
    missing = "validation" if not validation.counts()[1] else "training"
    assert f"classes without {missing} images: b" in caplog.text


def test_a_stratified_split_takes_its_share_of_every_class(index):
    config = data_config(validation_fraction=0.2, test_fraction=0.1)
    files = splits.split(index, config)
    assert counts(files) == [[35, 22, 7], [10, 6, 2], [5, 3, 1]]
    paths = [path for images in files for path in images.paths]
    assert sorted(paths) == sorted(index.paths)
    assert len(set(paths)) == len(paths)
    for images in files:
        assert [path.split("/")[-2] for path in images.paths] == [
            images.class_names[k] for k in images.labels
        ]
    assert splits.split(index, config).test.paths == files.test.paths
    config.split_seed = 1
    assert splits.split(index, config).test.paths != files.test.paths


def test_without_a_test_fraction_there_is_no_test_split(index):
    files = splits.split(index, data_config(validation_fraction=0.2))
    assert counts(files) == [[40, 25, 8], [10, 6, 2]]


def test_every_image_that_does_not_test_validates_in_one_fold(index):
    folds = [
        splits.split(index, data_config(num_folds=4, fold=i, test_fraction=0.1)) for i in range(4)
    ]
    assert len({files.test.paths for files in folds}) == 1
    validated = [path for files in folds for path in files.validation.paths]
    assert sorted([*validated, *folds[0].test.paths]) == sorted(index.paths)
    for files in folds:
        assert set(files.train.paths) == set(index.paths) - {
            *files.validation.paths,
            *files.test.paths,
        }
    by_class = np.array([files.validation.counts() for files in folds])
    assert (np.ptp(by_class, axis=0) <= 1).all()
    assert np.ptp(by_class.sum(axis=1)) <= 1


@pytest.mark.parametrize("changes", [{"validation_fraction": 0.3}, {"num_folds": 3}])
def test_a_group_is_never_divided(index, changes):
    # Groups of three, some of two classes, in any order.
    groups = np.random.default_rng(0).permutation(31)[np.arange(len(index)) // 3]
    files = splits.stratified_split(index, groups, data_config(test_fraction=0.2, **changes))
    sides = [{groups[index.paths.index(p)] for p in images.paths} for images in files]
    assert sum(map(len, sides)) == len(set.union(*sides)) == groups.max() + 1
    assert len(files.test) == pytest.approx(0.2 * len(index), abs=6)


def test_duplicates_lie_in_one_split_if_asked(tmp_path):
    for i in range(24):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        picture(size=(64, 64), seed=i // 4).save(path)  # each picture twice in both classes
    files = splits.read(tmp_path, data_config(test_fraction=0.3, group_duplicates=True))
    sides = [{int(Path(p).stem) // 4 for p in images.paths} for images in files]
    assert sum(map(len, sides)) == 6


def test_folds_and_fractions_that_leave_nothing_of_a_class_are_refused(index):
    with pytest.raises(UserError, match="class c has 10 images for 11 folds"):
        splits.split(index, data_config(num_folds=11))
    with pytest.raises(UserError, match="leaves no training images of class a, which has 50"):
        splits.split(index, data_config(validation_fraction=0.01, test_fraction=0.985))


def test_two_images_are_not_enough_for_three_splits(tmp_path):
    make_tree(tmp_path, [*(f"a/{i}.png" for i in range(9)), "b/0.png", "b/1.png"])
    with pytest.raises(UserError, match="leaves no training images of class b, which has 2"):
        splits.read(tmp_path, data_config(test_fraction=0.2))


PARTS = ["train/a/1.png", "train/b/1.png", "train/c/1.png", "test/a/1.png", "test/b/2.png"]


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_a_folder_that_is_split_already_is_taken_as_it_is(tmp_path, name, caplog):
    make_tree(tmp_path / "flowers", [*PARTS, f"{name}/b/3.png", f"{name}/c/3.png"])
    train, validation, test = splits.read(tmp_path, common.get_config().data)
    assert train.names == ["a/1.png", "b/1.png", "c/1.png"]
    assert validation.names == ["b/3.png", "c/3.png"]
    assert validation.labels.tolist() == [1, 2]
    assert test.names == ["a/1.png", "b/2.png"]
    assert train.class_names == validation.class_names == test.class_names
    assert f"{name} has no images of a" in caplog.text
    assert "test has no images of c" in caplog.text


def test_without_validation_images_the_training_images_are_split(tmp_path):
    make_tree(tmp_path, [f"train/{k}/{i}.png" for k in "ab" for i in range(10)])
    make_tree(tmp_path, ["test/a/1.png", "test/b/1.png"])
    files = splits.read(tmp_path, data_config(validation_fraction=0.2))
    assert counts(files) == [[8, 8], [2, 2], [1, 1]]


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (["val/a/1.png", "val/b/1.png", "val/d/1.png"], {}, "val has unknown classes .d."),
        (
            ["val/a/1.png", "valid/a/1.png"],
            {},
            "one folder each .*test, train, val, valid",
        ),
        (["other/a/1.png"], {}, "not into one folder each .*other, test, train"),
        (["val/a/1.png", "val/b/1.png"], {"split": "holdout"}, "has validation images already"),
        ([], {"split": "stratified", "test_fraction": 0.1}, "has test images already"),
        ([], {"split": "stratified", "group_duplicates": True}, "cannot keep duplicates together"),
    ],
)
def test_what_a_split_folder_cannot_be_is_said(tmp_path, names, changes, message):
    make_tree(tmp_path, [*PARTS, *names])
    config = common.get_config().data
    config.update(changes)
    with pytest.raises(UserError, match=message):
        splits.read(tmp_path, config)


def test_a_split_folder_needs_training_images(tmp_path):
    make_tree(tmp_path, ["val/a/1.png", "val/b/1.png", "test/a/1.png", "test/b/1.png"])
    with pytest.raises(UserError, match="has no training images"):
        splits.read(tmp_path, common.get_config().data)


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    make_tree(tmp_path, [f"{k}/{i}.png" for k in ("train", "bus") for i in range(10)])
    assert splits.read(tmp_path, common.get_config().data).train.class_names == ("bus", "train")
