"""Cross-validation: what the folds of a config say together."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flowers_jax.runs import evaluate, files, plots, run_folder

HEADER = [
    *("config", "runs", "accuracy", "sd", "lowest", "highest"),
    *("pooled", "95 % from", "to", "test", "run"),
]


def write(
    root: Path, workdirs: Mapping[str, Sequence[Path]], failures: Iterable[Path]
) -> list[list[str]]:
    """Writes `table.csv`, `table.md` and each config's pooled confusion matrix.

    Args:
      root: where to.
      workdirs: run folders of all folds of each config, of one seed or more.
      failures: those that failed.

    Returns:
      The rows of the table, in percent: mean and deviation over the folds of the accuracy on the
      fold that validates; the accuracy on all folds together, with Wilson's 95 % interval; the
      mean accuracy on the test images, if there are any.
    """
    rows = [_row(root, config, folds, set(failures)) for config, folds in workdirs.items()]
    files.prepare(root)
    files.write_csv(root / "table.csv", HEADER, rows)
    files.write_text(root / "table.md", files.markdown(HEADER, rows))
    return rows


def _row(root: Path, config: str, folds: Sequence[Path], failures: set[Path]) -> list[str]:
    finished = [path for path in folds if run_folder.read_summary(path)]
    state = "in full" if len(finished) == len(folds) else f"{len(finished)} of {len(folds)} runs"
    if not failures.isdisjoint(folds):
        state += ", failed"
    if not finished:
        return [config, "0", *[""] * (len(HEADER) - 3), state]
    matrix = np.sum([evaluate.read_confusion_matrix(path) for path in finished], axis=0)
    names = run_folder.read_class_names(finished[0])
    target, title = root / config, f"{config}: {matrix.sum()} answers of {len(finished)} runs"
    evaluate.write_confusion_matrix(target / "confusion_matrix.csv", matrix, names)
    figure = plots.confusion_matrix(matrix, names, title)
    files.write_figure(target / "confusion_matrix.png", figure)
    summaries = [run_folder.read_summary(path) or {} for path in finished]
    shares = [summary["reported_val_accuracy"] for summary in summaries]
    right, total = int(np.trace(matrix)), int(matrix.sum())
    tested = [summary["test"]["accuracy"] for summary in summaries if "test" in summary]
    values = [
        statistics.mean(shares),
        statistics.stdev(shares) if len(shares) > 1 else None,
        min(shares),
        max(shares),
        right / total,
        *evaluate.wilson(right, total),
        statistics.mean(tested) if tested else None,
    ]
    percents = ["" if value is None else f"{100 * value:.2f}" for value in values]
    return [config, str(len(finished)), *percents, state]
