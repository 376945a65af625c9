import numpy as np
import pytest
import sklearn.metrics
from scipy import special

from flowers_jax import calibration


@pytest.fixture(scope="module")
def overconfident():
    """Probabilities of logits that are three times too large, the right ones, and labels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 5))
    right = special.softmax(logits, axis=1)
    labels = np.array([rng.choice(5, p=row) for row in right])
    return special.softmax(3 * logits, axis=1).astype(np.float32), right, labels


def test_the_temperature_that_was_put_in_is_found_again(overconfident):
    probabilities, right, labels = overconfident
    temperature = calibration.fit_temperature(probabilities, labels)
    assert temperature == pytest.approx(3, abs=0.1)
    calibrated = calibration.calibrate(probabilities, 3.0)
    np.testing.assert_allclose(calibrated, right, atol=1e-4)
    before = calibration.expected_calibration_error(probabilities, labels)
    after = calibration.expected_calibration_error(calibrated, labels)
    assert after < 0.015 < 0.15 < before


def test_no_other_temperature_has_a_lower_log_loss(overconfident):
    probabilities, _, labels = (a[:2000] for a in overconfident)
    logits = np.log(probabilities.astype(np.float64))
    grid = np.linspace(2, 4, 401)
    losses = [sklearn.metrics.log_loss(labels, special.softmax(logits / t, axis=1)) for t in grid]
    ours = calibration.fit_temperature(probabilities, labels)
    assert ours == pytest.approx(grid[np.argmin(losses)], abs=0.006)


def test_probabilities_of_zero_and_of_a_thousand_classes_stay_finite():
    probabilities = np.array([[1, 0, 0], [0.5, 0.5, 0]], np.float32)
    assert 1 < calibration.fit_temperature(probabilities, np.array([2, 0])) <= 20.001
    many = np.full((1, 1000), 0.001, np.float32)
    np.testing.assert_allclose(calibration.calibrate(many, 0.05), many, rtol=1e-5)


def test_where_all_answers_are_right_there_is_nothing_to_fit():
    assert calibration.fit_temperature(np.array([[0.6, 0.4]], np.float32), np.array([0])) == 1


def test_the_calibration_error_is_that_of_a_loop(overconfident):
    probabilities, _, labels = (a[:500] for a in overconfident)
    expected = 0.0
    for low in range(15):
        inside = [
            (max(row), row.argmax() == label)
            for row, label in zip(probabilities.astype(float), labels, strict=True)
            if low / 15 < max(row) <= (low + 1) / 15
        ]
        if inside:
            sure, right = np.mean(inside, axis=0)
            expected += len(inside) / 500 * abs(sure - right)
    ours = calibration.expected_calibration_error(probabilities, labels)
    assert ours == pytest.approx(expected, abs=1e-9)
    assert calibration.reliability(probabilities, labels).count.sum() == 500


def test_coverage_takes_the_surest_first():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2]])
    accuracy, confidence = calibration.accuracy_over_coverage(probabilities, np.array([0, 1, 1]))
    np.testing.assert_allclose(accuracy, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(confidence, [0.9, 0.8, 0.6])
