import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from scipy import special

from flowers_jax import models, step
from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs import evaluate
from flowers_jax.step import Metrics, Task
from flowers_jax.trainer import Trainer


def test_padding_is_left_out_of_the_metrics_and_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    model = models.create_model("pilot_cnn", num_classes=3)
    images = rng.integers(0, 256, (3, 8, 16, 16, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, (3, 8)).astype(np.int32)
    mask = np.arange(24).reshape(3, 8) < 19
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    batches = [
        {"image": i, "label": k, "mask": m} for i, k, m in zip(images, labels, mask, strict=True)
    ]

    def loss(logits, label):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]

    task = Task(model, optax.sgd(0.1), loss, 1.0, "0_1", ())
    probabilities = Trainer(task, 16).predict(variables, batches)
    assert probabilities.shape == (19, 3)
    expected = jax.nn.softmax(model.apply(variables, images.reshape(24, 16, 16, 3) / 255.0))
    np.testing.assert_allclose(probabilities, expected[:19], atol=1e-6)

    sums = Metrics.zero(("main",))
    for batch in batches:
        sums = step.eval_step(task, variables, sums, batch)
    means, truth = sums.averages(), labels.ravel()[:19]
    predicted = probabilities.argmax(axis=1)
    assert means["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert means["loss"] == pytest.approx(sklearn.metrics.log_loss(truth, expected[:19]), rel=1e-5)
    np.testing.assert_array_equal(
        evaluate.confusion_matrix(truth, predicted, 3),
        sklearn.metrics.confusion_matrix(truth, predicted),
    )


def test_the_rows_of_the_confusion_matrix_are_the_truth():
    truth, predicted = np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0])
    matrix = evaluate.confusion_matrix(truth, predicted, 4)
    expected = np.zeros((4, 4), int)
    for t, p in zip(truth, predicted, strict=True):
        expected[t, p] += 1
    np.testing.assert_array_equal(matrix, expected)


def test_the_report_is_that_of_scikit_learn():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    report = evaluate.classification_report(truth, predicted, ("a", "b"))
    precision, recall, _, support = sklearn.metrics.precision_recall_fscore_support(
        truth, predicted
    )
    row = report.splitlines()[3].split()
    assert row[0] == "b"
    assert [float(row[1]), float(row[2])] == [round(precision[1], 4), recall[1]]
    assert int(row[4]) == support[1] == 2


def test_a_path_that_is_not_utf8_is_written_as_an_escape(tmp_path):
    files = ImageFolder(("a\udcff.jpg",), np.array([0]), ("x", "y"))
    evaluate.write_predictions(tmp_path / "predictions.csv", files, np.array([[0.25, 0.75]]))
    row = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert row == "a\\udcff.jpg,x,y,0.25,0.75"


def test_classes_named_like_columns_keep_their_own(tmp_path):
    files = ImageFolder(("x.jpg",), np.array([1]), ("label", "path", "predicted"))
    evaluate.write_predictions(tmp_path / "predictions.csv", files, np.array([[0.25, 0.5, 0.25]]))
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,label,predicted,class label,class path,class predicted"


def test_the_scores_of_each_split_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    predictions = {}
    for name, n in (("validation", 400), ("test", 300)):
        logits = rng.normal(0, 2, (n, 3))
        labels = np.array([rng.choice(3, p=row) for row in special.softmax(logits / 2, axis=1)])
        images = ImageFolder(("x",) * n, labels, ("a", "b", "c"))
        predictions[name] = evaluate.evaluate(images, special.softmax(logits, axis=1), {})
    scores = evaluate.scores(predictions)
    assert scores["temperature"] == pytest.approx(2, abs=0.35)
    for name, evaluation in predictions.items():
        truth, probabilities = evaluation.images.labels, evaluation.probabilities
        predicted, found = probabilities.argmax(axis=1), scores[name]
        assert found["accuracy"] == sklearn.metrics.accuracy_score(truth, predicted)
        assert found["macro_f1"] == sklearn.metrics.f1_score(truth, predicted, average="macro")
        assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(truth, probabilities))
        calibrated = special.softmax(np.log(probabilities) / scores["temperature"], axis=1)
        assert found["calibrated_log_loss"] == pytest.approx(
            sklearn.metrics.log_loss(truth, calibrated)
        )
        assert found["calibrated_log_loss"] < found["log_loss"]
        assert found["calibrated_calibration_error"] < found["calibration_error"]


def test_a_probability_of_zero_costs_much_and_not_everything():
    loss = evaluate.log_loss(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))
