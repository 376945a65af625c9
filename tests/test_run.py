"""A run from Python: `flowers_jax.fit` and `load`, and what a `Run` can do."""

import dataclasses
import logging
import subprocess
import sys

import jax
import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

import flowers_jax
from flowers_jax.data import folder
from flowers_jax.process.errors import UserError
from flowers_jax.runs import evaluate, history


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes, bright and dark, of 12 images of 20 x 24 pixels."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k, name in enumerate(["bright", "dark"]):
        (root / name).mkdir()
        for i in range(12):
            pixels = rng.integers(0, 100, (20, 24, 3)) + 140 * (1 - k)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    config = flowers_jax.default_config()
    config.model, config.image_size, config.batch_size = "pilot_cnn", 16, 8
    config.max_epochs = 2
    config.data.source, config.data.dir = "folder", str(images)
    return flowers_jax.fit(config, str(tmp_path_factory.mktemp("runs") / "run"))


def test_importing_the_package_is_cheap():
    code = "import sys, flowers_jax; assert not {'jax', 'numpy', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_holds_what_its_folder_holds(trained):
    assert trained.class_names == ("bright", "dark")
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert trained.history == history.read(trained.workdir)
    assert trained.summary["epochs_run"] == 2
    assert trained.config.image_size == 16
    again = flowers_jax.load(trained.workdir)
    jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)


def test_paths_pictures_and_pixels_get_the_same_probabilities(trained, images):
    paths = sorted(images.glob("*/*.png"))
    expected = trained.predict(paths)
    assert expected.shape == (24, 2)
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(trained.predict([str(path) for path in paths]), expected)
    pictures = [Image.open(path) for path in paths]
    np.testing.assert_array_equal(trained.predict(pictures), expected)
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    np.testing.assert_array_equal(trained.predict(pixels), expected)
    # One is one, in any form.
    for one in (paths[0], str(paths[0]), pictures[0], pixels[:1], np.array(paths[:1])):
        np.testing.assert_allclose(trained.predict(one), expected[:1], rtol=1e-5)
    for none in ([], pixels[:0]):
        assert trained.predict(none).shape == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), r"pixels 0..255, uint8 .* one is float32 \[1, 16"),
        (np.zeros((16, 16, 3), np.uint8), r"this one is uint8 \[16, 16, 3\]"),
        ([np.zeros((16, 16, 3), np.uint8)], "not a list of ndarray"),
        (None, "not a list of NoneType"),
        (np.zeros((1, 0, 4, 3), np.uint8), "one of these has none"),
        ([Image.new("RGB", (0, 0))], "one of these has none"),
        ([Image.new("I", (4, 4))], "has 32 bits per channel"),
        (["nowhere.png"], "1 of 1 images cannot be used: 'nowhere.png'"),
    ],
)
def test_what_cannot_be_classified_is_one_sentence(trained, wrong, message):
    with pytest.raises(UserError, match=message):
        trained.predict(wrong)


def test_evaluate_agrees_with_the_history_and_with_scikit_learn(trained, images):
    result = trained.evaluate(images)
    labels = folder.scan(images).labels
    predicted = result.probabilities.argmax(axis=1)
    assert result.metrics["accuracy"] == pytest.approx(np.mean(predicted == labels))
    loss = sklearn.metrics.log_loss(labels, result.probabilities)
    assert result.metrics["loss"] == pytest.approx(loss, rel=1e-5)
    expected = sklearn.metrics.confusion_matrix(labels, predicted)
    np.testing.assert_array_equal(result.confusion_matrix, expected)
    assert "precision" in result.report


def test_classes_are_matched_by_name(trained, images, tmp_path, caplog):
    (tmp_path / "dark").symlink_to(images / "dark")
    result = trained.evaluate(str(tmp_path))
    assert set(result.images.labels) == {1}
    assert result.confusion_matrix[0].sum() == 0
    assert result.confusion_matrix[1].sum() == 12
    assert "has no images of bright" in caplog.text
    (tmp_path / "dusk").symlink_to(images / "dark")
    with pytest.raises(UserError, match=r"unknown classes \(dusk\); known are bright, dark"):
        trained.evaluate(tmp_path)


def test_the_pictures_are_those_of_the_run_folder(trained):
    figure = trained.plot_curves()
    assert figure._repr_png_().startswith(b"\x89PNG")  # as notebooks show it
    loss, accuracy = figure.axes
    shown = {line.get_label(): line.get_ydata() for line in loss.lines}
    np.testing.assert_array_equal(shown["training"], [row["loss"] for row in trained.history])
    assert accuracy.get_ylabel() == "accuracy"
    axes = trained.plot_confusion_matrix().axes[0]
    counts = evaluate.read_confusion_matrix(trained.workdir)
    assert counts.sum() == trained.summary["num_validation"]
    assert [text.get_text() for text in axes.texts] == [str(n) for n in counts.ravel()]


def test_a_picture_whose_table_is_gone_is_a_sentence(trained, tmp_path):
    without = dataclasses.replace(trained, workdir=tmp_path, history=[])
    with pytest.raises(UserError, match=r"has no history.csv any more"):
        without.plot_curves()
    with pytest.raises(UserError, match=r"confusion_matrix.csv cannot be read: No such file"):
        without.plot_confusion_matrix()


def test_messages_are_shown_once_and_the_hosts_loggers_stay(trained, capsys, caplog):
    package = logging.getLogger("flowers_jax")
    flowers_jax.fit(trained.config, trained.workdir)
    assert capsys.readouterr().out.count("is finished; --restart begins anew") == 1
    assert (package.level, package.handlers, package.propagate) == (logging.NOTSET, [], True)
    # A program that shows them itself.
    with caplog.at_level(logging.INFO):
        flowers_jax.fit(trained.config, trained.workdir)
    assert capsys.readouterr().out == ""
    assert caplog.text.count("is finished; --restart begins anew") == 1


def test_a_run_explains_the_predicted_or_another_class_at_any_layer(trained, images):
    paths = [images / "bright" / "0.png", images / "dark" / "0.png"]
    predicted = [trained.class_names[k] for k in trained.predict(paths).argmax(axis=1)]
    found = trained.explain(paths)
    assert [(e.path, e.class_name) for e in found] == list(
        zip(map(str, paths), predicted, strict=True)
    )
    for explanation in found:
        assert explanation.heat.shape == (5, 5)
        assert explanation.heat.min() >= 0
        assert explanation.overlay().size == explanation.image.size == (24, 20)
    (other,) = trained.explain(paths[0], class_name="dark", layer="Conv_0")
    assert (other.class_name, other.heat.shape) == ("dark", (14, 14))


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ("no.png", {}, "1 of 1 images cannot be used: 'no.png' cannot be read"),
        ([Image.new("RGB", (4, 4))], {}, "takes paths of image files, not Image"),
        ([], {"class_name": "rose"}, "no class 'rose'; choose one of bright, dark"),
        ([], {"layer": "Dense_0"}, "no layer 'Dense_0' with height and width"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_sentence(trained, paths, options, message):
    with pytest.raises(UserError, match=message):
        trained.explain(paths, **options)


def test_an_embedding_has_length_one_and_is_zero_where_there_is_no_image(trained, images, tmp_path):
    paths = (str(images / "bright" / "0.png"), str(tmp_path / "none.png"))
    found = trained.embed(folder.ImageFolder(paths, np.zeros(2, np.int32), ("a",)))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 0], atol=1e-6)
