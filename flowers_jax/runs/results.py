"""What a finished run leaves: `summary.json`, tables and pictures."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import ResultsIncomplete
from flowers_jax.runs import evaluate, files
from flowers_jax.runs.evaluate import Probabilities
from flowers_jax.runs.folder import Summary
from flowers_jax.runs.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Original = Mapping[str, Sequence[float]]

log = logging.getLogger(__name__)


def write(
    workdir: Path,
    summary: Summary,
    history: History,
    validation: ImageFolder,
    probabilities: Probabilities,
    original: Original | None,
) -> None:
    """Writes them into the run folder.

    Args:
      workdir: the run folder.
      summary: see `Record.summary`.
      history: of the run.
      validation: the validation images.
      probabilities: of each of them, at the epoch that the run reports.
      original: logged columns of the study's run, drawn behind the curves.

    Raises:
      ResultsIncomplete: naming what could not be written; the rest is.
    """

    def write_curves() -> None:
        files.write_figure(workdir / "curves.png", curves(summary, history, original))

    def write_predictions() -> None:
        evaluation = evaluate.evaluate(validation, probabilities, {})
        evaluate.write(workdir, evaluation, title_of_epoch(summary))

    failed = []
    for name, write_one in {
        "summary.json": lambda: files.write_json(workdir / "summary.json", summary),
        "the predictions": write_predictions,
        "curves.png": write_curves,
    }.items():
        try:
            write_one()
        except Exception as error:  # whatever it is, the training must not be lost with it
            log.debug("%s", name, exc_info=True)
            failed.append(f"{name} ({type(error).__name__}: {error})")
    best = summary["best_epoch"]
    accuracy = f"validation accuracy {100 * summary['best_val_accuracy']:.2f} %"
    log.info(
        "best epoch %d of %d, %s; results in %s", best, summary["epochs_run"], accuracy, workdir
    )
    if failed:
        raise ResultsIncomplete(f"the run is trained, but not written: {'; '.join(failed)}.")


def curves(summary: Summary, history: History, original: Original | None) -> "Figure":
    """The learning curves of a run."""
    # matplotlib reads MPLBACKEND when it is imported, which the commands set.
    from flowers_jax.runs import plots

    return plots.curves(history, summary["best_epoch"], _title(summary), original)


def title_of_epoch(summary: Summary) -> str:
    """What stands over the confusion matrix of a run."""
    epoch, count = summary["reported_epoch"], summary["num_validation"]
    return f"{_title(summary)}\nepoch {epoch}, {count} validation images"


def _title(summary: Summary) -> str:
    config = summary["config"]
    return f"{config['model']}, {config['optimizer']['name']} on {summary['data_source']}"
