import subprocess
import sys

import numpy as np
import pytest

from flowers_jax.study import epoch_choice


def test_half_of_the_images_chooses_the_epoch_and_the_other_half_reports_it():
    # Twelve images; images 0 to 5 are all right after epoch 2, the others after epoch 4.
    right = np.zeros((6, 12), bool)
    right[1, :6] = right[3, 6:] = True
    assert epoch_choice.best_epoch(right[:, :6], 10) == 2
    assert epoch_choice.best_epoch(right[:, 6:], 10) == 4
    # With a patience of 2 the run ends after epoch 4.
    late = np.array([[1, 0], [0, 0], [0, 0], [1, 1]], bool)
    assert epoch_choice.best_epoch(late, 2) == 1
    assert epoch_choice.best_epoch(late, 3) == 4


def test_of_networks_that_guess_the_choice_is_worth_what_it_finds():
    # After every epoch half of the answers are right, at random: the other half must say 50 %.
    guesses = np.random.default_rng(0).random((50, 40, 800)) < 0.5
    choices = [epoch_choice.choose(right, 100, seed) for seed, right in enumerate(guesses)]
    halves = [half for pair in choices for half in pair]
    assert np.mean([half.on_other for half in halves]) == pytest.approx(0.5, abs=0.02)
    # The largest of 40 normal deviates is 2.16 deviations above the mean.
    expected = 0.5 + 2.16 * np.sqrt(0.25 / 400)
    assert np.mean([half.on_choosing for half in halves]) == pytest.approx(expected, abs=0.01)
    for half in choices[0]:
        both = (half.on_choosing + half.on_other) / 2
        assert both == pytest.approx(guesses[0, half.epoch - 1].mean())


@pytest.mark.slow
def test_the_script_trains_once_and_goes_on(tmp_path):
    def run(epochs):
        flags = ["--data.source=drawn", f"--out={tmp_path / 'out'}", f"--epochs={epochs}"]
        flags += ["--image_size=64", "--halves=5"]
        command = [sys.executable, "scripts/epoch_choice.py", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "epoch 2: loss" in run(2)
    (tmp_path / "out" / "halves.csv").unlink()
    again = run(3)  # more epochs of the same run
    assert "epoch 2: loss" not in again
    assert "epoch 3: loss" in again
    assert "Chosen and reported on all 100 images" in again
    assert len((tmp_path / "out" / "halves.csv").read_text().splitlines()) == 1 + 2 * 5
