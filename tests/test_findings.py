"""What the findings in `docs/` say of the study, computed from the reference file."""

import numpy as np
import pytest

from flowers_jax import reference

RUNS = {run["id"]: run for run in reference.study()["runs"]}
TRUE_COUNTS = reference.study()["dataset"]["validation_per_class_seed_1337"]


def logged(name):
    """Validation accuracy of each epoch, in percent to two places as the study's table has it."""
    history = RUNS[name].get("measured", {}).get("history", {})
    values = history.get("val_accuracy") or history.get("val_main_accuracy") or []
    return [round(100 * value, 2) for value in values]


def test_which_rows_of_the_table_are_not_the_best_epoch():
    last, other = set(), set()
    for name, run in RUNS.items():
        accuracies, table = logged(name), run["memoria_max_val_accuracy_pct"]
        if not accuracies or table is None or table == pytest.approx(max(accuracies), abs=0.006):
            continue
        (last if table == pytest.approx(accuracies[-1], abs=0.006) else other).add(name)
    assert last == {
        "alexnet_adam",
        "vgg16_adadelta",
        "vgg16_keras_adam",
        "vgg16_keras_adagrad",
        "vgg16_keras_sgd",
        "improvement_2_gap",
    }
    assert other == {
        "base_v2_adam",
        "alexnet_sgd",
        "vgg16_adagrad",
        "googlenet_sgd",
        "improvement_0_base",
        "improvement_1_conv5x5",
    }
    assert RUNS["vgg16_adagrad"]["memoria_max_val_accuracy_pct"] not in logged("vgg16_adagrad")


def test_every_printed_report_is_transposed():
    reports = {
        name: run["measured"]["classification_report_as_printed"]
        for name, run in RUNS.items()
        if "classification_report_as_printed" in run.get("measured", {})
    }
    assert len(reports) == 17
    for report in reports.values():
        support = np.array([row["support"] for row in report])
        assert support.tolist() != TRUE_COUNTS
        precision, recall = (np.array([row[k] for row in report]) for k in ("precision", "recall"))
        # The number of right answers per class, if support counts predictions and what is called
        # precision is the recall of the true class.
        np.testing.assert_allclose(recall * support, precision * TRUE_COUNTS, atol=0.06)


def test_the_vgg16_sgd_row_is_the_adadelta_row():
    sgd, adadelta = RUNS["vgg16_sgd"], RUNS["vgg16_adadelta"]
    for key in ("memoria_max_train_accuracy_pct", "memoria_max_val_accuracy_pct"):
        assert sgd[key] == adadelta[key]
    assert not logged("vgg16_sgd")
    assert "byte for byte" in sgd["note"]


def test_the_last_runs_had_more_images_than_there_are():
    for name in ("improvement_5_augmentation", "improvement_5_augmentation_vflip"):
        assert "80 validation images" in RUNS[name]["note"]
        assert "were also trained on" in RUNS[name]["note"]
        assert RUNS[name]["input_scaling"].startswith("[0,1] twice")
    assert "3997 training + 400 validation" in RUNS["improvement_5_augmentation"]["note"]
    assert 3997 + 400 - reference.study()["dataset"]["images"] == 80


def test_the_pilot_validates_on_its_training_images():
    assert RUNS["pilot_adadelta"]["split"].startswith("none: train and validate on all 4317")


def test_googlenet_never_stopped_early():
    for name in ("googlenet_adadelta", "googlenet_sgd"):
        assert RUNS[name]["measured"]["epochs_run"] == RUNS[name]["max_epochs"] == 200
        assert "val_accuracy" not in RUNS[name]["measured"]["history"]
