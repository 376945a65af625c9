import numpy as np

from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import plots
from flowers_jax.runs.evaluate import evaluate

HISTORY = [
    {"epoch": e, "loss": 1 / e, "accuracy": e / 5, "val_loss": 2 / e, "val_accuracy": e / 6}
    for e in range(1, 5)
]


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def test_curves_show_both_splits_the_best_epoch_and_the_original_run():
    original = {
        "loss": [3, 2],
        "accuracy": [0.1, 0.2],
        "val_loss": [4, 3],
        "val_accuracy": [0, 0.1],
    }
    figure = plots.curves(HISTORY, 3, "a title", original)
    assert figure.get_suptitle() == "a title"
    loss, accuracy = figure.axes
    np.testing.assert_allclose(lines(loss)["training"], [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(lines(accuracy)["validation"], [1 / 6, 2 / 6, 3 / 6, 4 / 6])
    np.testing.assert_allclose(lines(accuracy)["validation, original study"], [0, 0.1])
    assert "best epoch 3: 50.0%" in lines(accuracy)
    assert len(lines(plots.curves(HISTORY, 3, "", None).axes[0])) == len(lines(loss)) - 2


def test_the_original_accuracy_of_googlenet_is_that_of_its_main_head():
    original = {"loss": [3], "val_loss": [4], "main_accuracy": [0.1], "val_main_accuracy": [0.2]}
    accuracy = plots.curves(HISTORY, 1, "", original).axes[1]
    np.testing.assert_allclose(lines(accuracy)["training, original study"], [0.1])
    np.testing.assert_allclose(lines(accuracy)["validation, original study"], [0.2])


def test_one_spike_does_not_flatten_the_loss():
    history = [dict(HISTORY[0], epoch=e, val_loss=1e6 if e == 30 else 1.0) for e in range(1, 60)]
    assert plots.curves(history, 1, "", None).axes[0].get_ylim()[1] < 10


def test_the_confusion_matrix_has_rows_that_are_the_truth():
    matrix = np.array([[5, 2], [0, 3]])
    figure = plots.confusion_matrix(matrix, ["a", "$b"], "title")
    axes = figure.axes[0]
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    assert counts[(1, 0)] == "2"  # x is the predicted class, y the true one
    assert counts[(0, 1)] == "0"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    figure.canvas.draw()  # a "$" in a class name is no formula


def test_of_many_classes_the_most_confused_are_shown():
    matrix = np.diag(np.full(200, 5))
    matrix[150, 17] = matrix[3, 199] = 9
    names = [f"class {i}" for i in range(200)]
    axes = plots.confusion_matrix(matrix, names, "title").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shown) == plots.MAX_CLASSES
    assert {"class 3", "class 17", "class 150", "class 199"} <= set(shown)
    assert "of 200 classes" in axes.get_title()
    i, j = shown.index("class 150"), shown.index("class 17")
    assert {text.get_position(): text.get_text() for text in axes.texts}[(j, i)] == "9"


def test_confidence_is_shown_before_and_after_and_over_coverage():
    probabilities = np.array([[0.95, 0.05], [0.9, 0.1], [0.6, 0.4], [0.45, 0.55]])
    images = ImageFolder(("x",) * 4, np.array([0, 1, 0, 1]), ("a", "b"))
    found = {name: evaluate(images, probabilities, {}) for name in ("validation", "test")}
    figure = plots.confidence(found, 1.5, "$title")
    reliability, _, coverage = figure.axes
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "4 validation images",
        "4 test images",
    ]
    assert any(label.startswith("before: error 0.") for label in lines(reliability))
    np.testing.assert_allclose(lines(coverage)["test"], [1, 1 / 2, 2 / 3, 3 / 4])
    figure.canvas.draw()
