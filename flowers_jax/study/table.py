"""The study's table beside ours: what a row says and how sure it is."""

import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from flowers_jax import results

Summary = dict[str, Any]

COLUMNS = (
    "config",
    "row",
    "study_max_train_accuracy",
    "study_max_val_accuracy",
    "study_best_epoch_val_accuracy",
    "seeds",
    "max_train_accuracy",
    "max_val_accuracy",
    "max_val_accuracy_sd",
    "difference",
    "restored_val_accuracy",
    "interval_low",
    "interval_high",
    "epochs",
    "best_epoch",
    "minutes",
    "images_per_second",
    "state",
)


def row(config_name: str, summaries: Sequence[Summary]) -> dict[str, Any]:
    """One row of the table; accuracies in percent, None where there is nothing.

    Args:
      config_name: name of the config.
      summaries: of its finished runs, one per seed.

    Returns:
      `COLUMNS` and their values. The study reports the maximum over the epochs, so
      `max_val_accuracy` is ours (mean over seeds) and `difference` ours minus the best epoch of
      the study's log; `restored_val_accuracy` is that of the weights that the run keeps, with a
      95 % interval, see `interval`.
    """
    logged = results.study_run(config_name) or {}
    measured = logged.get("measured", {})

    def mean(key: str, scale: float = 1) -> float | None:
        return scale * statistics.mean(s[key] for s in summaries) if summaries else None

    ours, theirs = mean("best_val_accuracy", 100), _percent(measured.get("best_val_accuracy"))
    low, high = interval(summaries) if summaries else (None, None)
    several = len(summaries) > 1
    return {
        "config": config_name,
        "row": logged.get("memoria_row"),
        "study_max_train_accuracy": logged.get("memoria_max_train_accuracy_pct"),
        "study_max_val_accuracy": logged.get("memoria_max_val_accuracy_pct"),
        "study_best_epoch_val_accuracy": theirs,
        "seeds": len(summaries),
        "max_train_accuracy": mean("max_train_accuracy", 100),
        "max_val_accuracy": ours,
        "max_val_accuracy_sd": (
            statistics.stdev(100 * s["best_val_accuracy"] for s in summaries) if several else None
        ),
        "difference": None if ours is None or theirs is None else ours - theirs,
        "restored_val_accuracy": mean("reported_val_accuracy", 100),
        "interval_low": low,
        "interval_high": high,
        "epochs": mean("epochs_run"),
        "best_epoch": mean("best_epoch"),
        "minutes": mean("train_seconds", 1 / 60),
        "images_per_second": mean("images_per_second"),
        "state": state(config_name, summaries),
    }


def state(config_name: str, summaries: Sequence[Summary]) -> str:
    """What was run: in full, shortened (to fewer epochs than the study's), or not at all.

    Of a run that is none of the study's, and did not stop by itself, only the number of epochs.
    """
    if not summaries:
        return "not run"
    epochs = min((s["epochs_run"] for s in summaries if not s["stopped_early"]), default=None)
    if epochs is None:
        return "in full"
    logged = results.study_run(config_name)
    if logged is None:
        return f"{epochs} epochs"
    whole = logged["max_epochs"]
    return f"shortened to {epochs} of {whole} epochs" if epochs < whole else "in full"


def interval(summaries: Sequence[Summary]) -> tuple[float, float]:
    """95 % interval of the restored weights' validation accuracy, in percent.

    Of one run Wilson's, for other images of the same kind; of several Student's for the mean over
    seeds, on these images. Neither counts that the epoch was chosen on these images.
    """
    accuracies = [100 * s["reported_val_accuracy"] for s in summaries]
    if len(summaries) > 1:
        return _student(accuracies)
    count = summaries[0]["num_validation"]
    correct = round(summaries[0]["reported_val_accuracy"] * count)
    wilson = stats.binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return 100 * wilson.low, 100 * wilson.high


def _student(values: Sequence[float]) -> tuple[float, float]:
    mean, error = statistics.mean(values), stats.sem(values)
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
