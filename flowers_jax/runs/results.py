"""What a finished run leaves: `summary.json`, tables and pictures."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import ResultsIncomplete
from flowers_jax.runs import evaluate, files
from flowers_jax.runs.evaluate import Evaluation
from flowers_jax.runs.history import History, Original
from flowers_jax.runs.run_folder import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def write(
    workdir: Path,
    summary: Summary,
    history: History,
    evaluations: Mapping[str, Evaluation],
    original: Original | None,
) -> None:
    """Writes them into the run folder.

    Args:
      workdir: the run folder.
      summary: see `Record.summary` and `evaluate.scores`.
      history: of the run.
      evaluations: of 'validation' and, if there are such images, 'test', at the epoch that the run
        reports.
      original: logged columns of the study's run, drawn behind the curves.

    Raises:
      ResultsIncomplete: naming what could not be written; the rest is.
    """

    def write_curves() -> None:
        files.write_figure(workdir / "curves.png", curves(summary, history, original))

    def write_predictions(split: str) -> None:
        prefix = "" if split == "validation" else f"{split}_"
        evaluate.write(workdir, evaluations[split], title_of_epoch(summary, split), prefix)

    def write_confidence() -> None:
        from flowers_jax.runs import plots

        figure = plots.confidence(evaluations, summary["temperature"], _title(summary))
        files.write_figure(workdir / "confidence.png", figure)

    failed = []
    parts: dict[str, Callable[[], None]] = {
        "summary.json": lambda: files.write_json(workdir / "summary.json", summary),
        **{f"the {split} predictions": partial(write_predictions, split) for split in evaluations},
        "curves.png": write_curves,
        "confidence.png": write_confidence,
    }
    for name, write_one in parts.items():
        try:
            write_one()
        except Exception as error:  # whatever it is, the training must not be lost with it
            log.debug("%s", name, exc_info=True)
            failed.append(f"{name} ({type(error).__name__}: {error})")
    log.info(
        "best epoch %d of %d by %s, its validation accuracy %.2f %%; results in %s",
        summary["best_epoch"],
        summary["epochs_run"],
        summary["monitor"],
        100 * summary["best_epoch_val_accuracy"],
        workdir,
    )
    if failed:
        raise ResultsIncomplete(f"the run is trained, but not written: {'; '.join(failed)}.")


def write_batch(workdir: Path, files_of_batch: ImageFolder, images: np.ndarray) -> None:
    """Draws a batch as the network sees it, float `[n, height, width, 3]`, in `augmented.png`."""
    from flowers_jax.runs import plots

    names = [files_of_batch.class_names[label] for label in files_of_batch.labels]
    files.write_figure(workdir / "augmented.png", plots.batch(images[: len(names)], names))


def curves(summary: Summary, history: History, original: Original | None) -> "Figure":
    """The learning curves of a run."""
    # matplotlib reads MPLBACKEND when it is imported, which the commands set.
    from flowers_jax.runs import plots

    return plots.curves(history, summary["best_epoch"], _title(summary), original)


def title_of_epoch(summary: Summary, split: str = "validation") -> str:
    """What stands over the confusion matrix of a run."""
    epoch, count = summary["reported_epoch"], summary[f"num_{split}"]
    return f"{_title(summary)}\nepoch {epoch}, {count} {split} images"


def _title(summary: Summary) -> str:
    config = summary["config"]
    return f"{config['model']}, {config['optimizer']['name']} on {summary['data_source']}"
