import numpy as np
import pytest
from PIL import Image

from flowers_jax.data import drawn, folder
from flowers_jax.process.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same flowers twice, and others."""
    roots = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        roots[name] = tmp_path_factory.mktemp(name)
        drawn.write(roots[name], per_class=16, size=48, seed=seed)
    return roots


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("*/*")}


def test_no_drawings_go_among_other_files(tmp_path):
    (tmp_path / "daisy").mkdir()
    (tmp_path / "daisy" / "daisy_0001.jpg").write_bytes(b"a photograph")
    with pytest.raises(UserError, match="holds other files, and no drawings go among them"):
        drawn.write(tmp_path, per_class=1, size=8)
    assert len(list(tmp_path.rglob("*"))) == 2


def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(written):
    first, again, other = (contents(written[name]) for name in ("first", "again", "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_it_is_an_image_folder_of_five_kinds(written):
    index = folder.scan(written["first"])
    assert index.class_names == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert index.counts().tolist() == [16] * 5
    for path in index.paths:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (48, 48))


def test_an_image_does_not_depend_on_how_many_there_are(written, tmp_path):
    drawn.write(tmp_path, per_class=2, size=48, seed=0)
    few, many = contents(tmp_path), contents(written["first"])
    assert len(few) == 10
    assert few.items() <= many.items()


def test_no_two_images_are_alike(written):
    assert len(set(contents(written["first"]).values())) == 80


def mean_colours(root):
    index = folder.scan(root)
    colours = [np.asarray(Image.open(path), float).mean(axis=(0, 1)) for path in index.paths]
    return np.array(colours), index.labels


def test_the_mean_colour_does_not_give_the_kind_away(written):
    # If it did, a network that has learnt no shape would pass for one that has.
    train, train_labels = mean_colours(written["first"])
    test, test_labels = mean_colours(written["other"])
    centroids = np.array([train[train_labels == k].mean(axis=0) for k in range(5)])
    nearest = np.linalg.norm(test[:, None] - centroids, axis=2).argmin(axis=1)
    assert (nearest == test_labels).mean() < 0.5
