"""The study's table beside ours: what a row says and how sure it is."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from flowers_jax import reference
from flowers_jax.runs import evaluate, files, run_folder
from flowers_jax.runs.run_folder import Summary

Row = dict[str, Any]

# Columns that people read: format, heading in table.md, and heading in the report if it shows them.
HEADINGS = {
    "config": ("", "config", None),
    "study_max_val_accuracy": (".2f", "study's table", None),
    "study_best_epoch_val_accuracy": (".2f", "best epoch of its log", "study"),
    "seeds": ("", "seeds", None),
    "max_val_accuracy": (".2f", "ours", "ours"),
    "max_val_accuracy_sd": (".2f", "sd", None),
    "difference": ("+.2f", "difference", "difference"),
    "restored_val_accuracy": (".2f", "restored epoch", "restored"),
    "interval_low": (".1f", "95 % from", "from"),
    "interval_high": (".1f", "to", "to"),
    "study_max_train_accuracy": (".2f", "study's training", None),
    "max_train_accuracy": (".2f", "our training", "training"),
    "epochs": (".0f", "epochs", "epochs"),
    "best_epoch": (".0f", "best epoch", "best epoch"),
    "minutes": (".1f", "minutes", "minutes"),
    "images_per_second": (".0f", "images/s", "images/s"),
    "state": ("", "run", None),
}


def write(root: Path, rows: Sequence[Row]) -> None:
    """Writes `table.csv` with all columns and `table.md` with those that people read."""
    files.prepare(root)
    files.write_csv(root / "table.csv", list(rows[0]), (row.values() for row in rows))
    header = [heading for _, heading, _ in HEADINGS.values()]
    cells = [[cell(row, column) for column in HEADINGS] for row in rows]
    files.write_text(root / "table.md", files.markdown(header, cells))


def cell(row: Row, column: str) -> str:
    """A value as people read it; empty where there is none."""
    return "" if row[column] is None else format(row[column], HEADINGS[column][0])


def row_of_runs(config_name: str, workdirs: Iterable[Path], failures: Iterable[Path]) -> Row:
    """`row` of the runs in these folders, one per seed; `state` tells what is missing or failed."""
    workdirs = sorted(workdirs)
    finished = [summary for workdir in workdirs if (summary := run_folder.read_summary(workdir))]
    result = row(config_name, finished)
    if len(finished) < len(workdirs):
        result["state"] += f", {len(finished)} of {len(workdirs)} seeds finished"
    if not set(failures).isdisjoint(workdirs):
        result["state"] += ", failed"
    return result


def row(config_name: str, summaries: Sequence[Summary]) -> Row:
    """One row of the table, of the finished runs of a config; accuracies in percent.

    The study reports the maximum over the epochs, so `max_val_accuracy` is ours (mean over seeds)
    and `difference` ours minus the best epoch of the study's log; `restored_val_accuracy` is that
    of the weights that the run keeps, with a 95 % interval. Where there is nothing stands None.
    """
    logged = reference.run(config_name) or {}
    best = logged.get("measured", {}).get("best_val_accuracy")

    def mean(key: str, scale: float = 1) -> float | None:
        return scale * statistics.mean(s[key] for s in summaries) if summaries else None

    ours, theirs = mean("best_val_accuracy", 100), None if best is None else 100 * best
    percents = [100 * s["best_val_accuracy"] for s in summaries]
    low, high = interval(summaries) if summaries else (None, None)
    return {
        "config": config_name,
        "row": logged.get("memoria_row"),
        "study_max_train_accuracy": logged.get("memoria_max_train_accuracy_pct"),
        "study_max_val_accuracy": logged.get("memoria_max_val_accuracy_pct"),
        "study_best_epoch_val_accuracy": theirs,
        "seeds": len(summaries),
        "max_train_accuracy": mean("max_train_accuracy", 100),
        "max_val_accuracy": ours,
        "max_val_accuracy_sd": statistics.stdev(percents) if len(percents) > 1 else None,
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
    logged = reference.run(config_name)
    if epochs is None or (logged and epochs >= logged["max_epochs"]):
        return "in full"
    return (
        f"shortened to {epochs} of {logged['max_epochs']} epochs" if logged else f"{epochs} epochs"
    )


def interval(summaries: Sequence[Summary]) -> tuple[float, float]:
    """95 % interval of the restored weights' validation accuracy, in percent.

    Of one run Wilson's, for other images of the same kind; of several Student's for the mean over
    seeds, on these images. Neither counts that the epoch was chosen on these images.
    """
    accuracies = [100 * s["reported_val_accuracy"] for s in summaries]
    if len(summaries) == 1:
        count = summaries[0]["num_validation"]
        correct = round(accuracies[0] * count / 100)
        low, high = evaluate.wilson(correct, count)
        return 100 * low, 100 * high
    mean, error = statistics.mean(accuracies), stats.sem(accuracies)
    half = float(error * stats.t.ppf(0.975, len(accuracies) - 1))
    return mean - half, mean + half
