import numpy as np
import sklearn.metrics

from flowers_jax import evaluate


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
