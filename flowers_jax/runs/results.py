"""What a finished run leaves: `summary.json`, tables and pictures."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import ResultsIncomplete
from flowers_jax.runs import evaluate, files
from flowers_jax.runs.evaluate import Probabilities
from flowers_jax.runs.folder import Summary
from flowers_jax.runs.history import History

log = logging.getLogger(__name__)


def write(
    workdir: Path,
    summary: Summary,
    history: History,
    validation: ImageFolder,
    probabilities: Probabilities,
    original: Mapping[str, Sequence[float]] | None,
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
    # matplotlib reads MPLBACKEND when it is imported, which the commands set.
    from flowers_jax.runs import plots

    config, best = summary["config"], summary["best_epoch"]
    title = f"{config['model']}, {config['optimizer']['name']} on {summary['data_source']}"
    of_epoch = f"{title}\nepoch {summary['reported_epoch']}, {len(validation)} validation images"

    def write_curves() -> None:
        figure = plots.curves(history, best, title, original)
        files.write_figure(workdir / "curves.png", figure)

    failed = []
    for name, write_one in {
        "summary.json": lambda: files.write_json(workdir / "summary.json", summary),
        "the predictions": lambda: evaluate.write(workdir, validation, probabilities, of_epoch),
        "curves.png": write_curves,
    }.items():
        try:
            write_one()
        except Exception as error:  # whatever it is, the training must not be lost with it
            log.debug("%s", name, exc_info=True)
            failed.append(f"{name} ({type(error).__name__}: {error})")
    accuracy = f"validation accuracy {100 * summary['best_val_accuracy']:.2f} %"
    log.info(
        "best epoch %d of %d, %s; results in %s", best, summary["epochs_run"], accuracy, workdir
    )
    if failed:
        raise ResultsIncomplete(f"the run is trained, but not written: {'; '.join(failed)}.")
