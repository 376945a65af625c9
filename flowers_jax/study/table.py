"""The study's table beside ours: what a row says and how sure it is."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from flowers_jax import reference
from flowers_jax.runs import files, folder
from flowers_jax.runs.folder import Summary

Row = dict[str, Any]

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
# Headings and formats of the columns that table.md shows.
HEADINGS = {
    "config": ("config", ""),
    "study_max_val_accuracy": ("study's table", ".2f"),
    "study_best_epoch_val_accuracy": ("best epoch of its log", ".2f"),
    "seeds": ("seeds", ""),
    "max_val_accuracy": ("ours", ".2f"),
    "max_val_accuracy_sd": ("sd", ".2f"),
    "difference": ("difference", "+.2f"),
    "restored_val_accuracy": ("restored epoch", ".2f"),
    "interval_low": ("95 % from", ".1f"),
    "interval_high": ("to", ".1f"),
    "study_max_train_accuracy": ("study's training", ".2f"),
    "max_train_accuracy": ("our training", ".2f"),
    "epochs": ("epochs", ".0f"),
    "best_epoch": ("best epoch", ".0f"),
    "minutes": ("minutes", ".1f"),
    "images_per_second": ("images/s", ".0f"),
    "state": ("run", ""),
}


def write(root: Path, rows: Sequence[Row]) -> None:
    """Writes `table.csv` with all columns and `table.md` with those that people read."""
    files.prepare(root)
    files.write_csv(root / "table.csv", COLUMNS, ([row[c] for c in COLUMNS] for row in rows))
    cells = [
        ["" if row[c] is None else format(row[c], spec) for c, (_, spec) in HEADINGS.items()]
        for row in rows
    ]
    header = [heading for heading, _ in HEADINGS.values()]
    files.write_text(root / "table.md", files.markdown(header, cells))


def row_of_runs(config_name: str, workdirs: Iterable[Path], failures: Iterable[Path]) -> Row:
    """`row` of the runs in these folders; its `state` tells what is missing or failed.

    Args:
      config_name: name of the config.
      workdirs: the run folders, one per seed.
      failures: folders of the runs that failed.
    """
    workdirs = sorted(workdirs)
    found = [folder.read_summary(workdir) for workdir in workdirs]
    finished = [summary for summary in found if summary is not None]
    result = row(config_name, finished)
    if len(finished) < len(workdirs):
        result["state"] += f", {len(finished)} of {len(workdirs)} seeds finished"
    if not set(failures).isdisjoint(workdirs):
        result["state"] += ", failed"
    return result


def row(config_name: str, summaries: Sequence[Summary]) -> Row:
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
    logged = reference.run(config_name) or {}
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
    logged = reference.run(config_name)
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
