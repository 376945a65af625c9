"""The run folder: what a run leaves behind, written so that no file is ever half there."""

import contextlib
import csv
import errno
import functools
import importlib.metadata
import io
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

from flowers_jax import evaluate, plots
from flowers_jax.data.folder import ImageFolder
from flowers_jax.errors import UserError

History = list[dict[str, float]]


def metric_columns(heads: Sequence[str]) -> list[str]:
    """The columns of the history that can be monitored; `heads` as of `models.head_names`."""
    names = ["loss", "accuracy"]
    names += [f"{head}_{metric}" for head in heads for metric in ("loss", "accuracy")]
    return names + [f"val_{name}" for name in names]


def history_columns(heads: Sequence[str]) -> list[str]:
    """The columns of `history.csv`, in order."""
    metrics = metric_columns(heads)
    first = ["loss", "accuracy", "val_loss", "val_accuracy"]
    rest = [name for name in metrics if name not in first]
    return ["epoch", *first, "learning_rate", "seconds", *rest]


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, which has the old or the new content whenever one looks.

    File names that are no UTF-8 are written with escapes.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` by way of a temporary file beside it.

    Raises:
      UserError: it cannot be written; what was there is intact.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with full_disk_named(path.parent):
            temporary.write_bytes(content)
            os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows under a header, numbers in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def write_history(workdir: Path, history: History, heads: Sequence[str]) -> None:
    """Writes `history.csv`."""
    columns = history_columns(heads)
    write_csv(workdir / "history.csv", columns, ([row[c] for c in columns] for row in history))


def read_history(workdir: Path) -> History:
    """Reads `history.csv` back."""
    with open(workdir / "history.csv", newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return [{**row, "epoch": int(row["epoch"])} for row in rows]


def write_predictions(workdir: Path, files: ImageFolder, probabilities: np.ndarray) -> None:
    """Writes `predictions.csv`: `path,label,predicted` and a probability per class."""
    names = files.class_names
    predicted = probabilities.argmax(axis=1)
    rows = zip(files.paths, files.labels, predicted, probabilities.tolist(), strict=True)
    write_csv(
        workdir / "predictions.csv",
        ["path", "label", "predicted", *names],
        ([path, names[i], names[j], *row] for path, i, j, row in rows),
    )


def write_evaluation(
    workdir: Path,
    summary: dict[str, Any],
    history: History,
    files: ImageFolder,
    probabilities: np.ndarray,
) -> None:
    """Writes predictions, report and pictures of the validation split.

    Args:
      workdir: the run folder.
      summary: of the run.
      history: of the run.
      files: of the validation split, `[n]`.
      probabilities: of the reported epoch's weights, `[n, num_classes]`.
    """
    names = files.class_names
    predicted = probabilities.argmax(axis=1)
    matrix = evaluate.confusion_matrix(files.labels, predicted, len(names))
    write_predictions(workdir, files, probabilities)
    write_csv(
        workdir / "confusion_matrix.csv",
        ["true class", *names],
        ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)),
    )
    report = evaluate.classification_report(files.labels, predicted, names)
    write_text(workdir / "classification_report.txt", report)

    config = summary["config"]
    title = f"{config['model']}, {config['optimizer']['name']} on {summary['data_source']}"
    logged = study_run(config["study_run"]) or {}
    original = logged.get("measured", {}).get("history")
    figure = plots.curves(history, summary["best_epoch"], title, original)
    write_figure(workdir / "curves.png", figure)
    title += f"\nepoch {summary['reported_epoch']}, {len(files)} validation images"
    figure = plots.confusion_matrix(matrix, names, title)
    write_figure(workdir / "confusion_matrix.png", figure)


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())


def write_image(path: Path, image: Image.Image) -> None:
    """Writes a picture of Pillow as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def prepare(workdir: Path) -> None:
    """Makes the run folder.

    Raises:
      UserError: it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the run folder {workdir} cannot be written ({error.strerror}); "
            "choose another with --workdir."
        ) from error


def require_space(workdir: Path, num_bytes: int) -> None:
    """Raises UserError unless the disk of `workdir` can take a checkpoint of `num_bytes`."""
    free = shutil.disk_usage(workdir).free
    needed = num_bytes + 2**20  # and the small files
    if free < needed:
        raise _disk_full(workdir, f", {needed / 1e6:.0f} MB are needed")


@contextlib.contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turns what the file system says of a full disk into the sentence of `require_space`."""
    try:
        yield
    # tensorstore, which writes the arrays of checkpoints, raises ValueError.
    except (OSError, ValueError) as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise _disk_full(folder) from error


def _disk_full(folder: Path, needed: str = "") -> UserError:
    free = shutil.disk_usage(folder).free
    return UserError(
        f"the disk of {folder} is full: {free / 1e6:.0f} MB are free{needed}. "
        "The last checkpoint is intact; free space and start the same command again."
    )


def read_config(workdir: Path) -> dict[str, Any]:
    """The settings of the run in `workdir`, as nested dicts.

    Raises:
      UserError: it is no run folder.
    """
    try:
        return json.loads((workdir / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is no run folder: it has no readable config.json.") from error


def json_config(config: ConfigDict) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return json.loads(config.to_json())


def finished_summary(workdir: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The summary of the run in `workdir`, None if there is none or it is not finished.

    Raises:
      UserError: the folder holds a run with other settings than `config`.
    """
    if not (workdir / "config.json").exists():
        return None
    differing = differences(read_config(workdir), config)
    if differing:
        raise UserError(
            f"{workdir} holds a run with other settings ({'; '.join(differing)}); move it away, "
            "choose another --workdir, or begin anew with --restart."
        )
    return read_summary(workdir)


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """What `summary.json` holds, None if the run is not finished."""
    path = workdir / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def claim(workdir: Path, config: dict[str, Any], class_names: Sequence[str]) -> None:
    """Writes `config.json`, and `classes.json` for predictions and to notice other data.

    Raises:
      UserError: the run in the folder began with other classes.
    """
    if (workdir / "classes.json").exists():
        old = read_class_names(workdir)
        if old != tuple(class_names):
            raise UserError(
                f"{workdir} holds a run on the classes {', '.join(old)}, the data has "
                f"{', '.join(class_names)}; choose another --workdir, or begin anew with --restart."
            )
    write_json(workdir / "classes.json", list(class_names))
    write_json(workdir / "config.json", config)


def set_aside(workdir: Path) -> Path | None:
    """Renames an existing run folder; returns its new name."""
    if not workdir.exists():
        return None
    number = next(n for n in itertools.count(1) if not _numbered(workdir, n).exists())
    return workdir.rename(_numbered(workdir, number))


def is_set_aside(workdir: Path) -> bool:
    """Whether `set_aside` has named the folder."""
    return re.search(r"\.old\d+$", workdir.name) is not None


def _numbered(workdir: Path, number: int) -> Path:
    return workdir.with_name(f"{workdir.name}.old{number}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    packages = ("flowers-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for package in (*packages, "tensorflow", "tensorflow-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def read_class_names(workdir: Path) -> tuple[str, ...]:
    """The classes of the run in `workdir`.

    Raises:
      UserError: it is no run folder.
    """
    try:
        return tuple(json.loads((workdir / "classes.json").read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is no run folder: it has no readable classes.json.") from error


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ, with both values."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {a!r} and is {b!r}")
    return found


@functools.cache
def reference() -> dict[str, Any]:
    """The original study: `dataset`, `conventions`, `architectures` and `runs`."""
    text = resources.files("flowers_jax.reference").joinpath("memoria.json").read_text("utf-8")
    return json.loads(text)


def study_run(name: str) -> dict[str, Any] | None:
    """A run of the original study: settings, logged history and report; None if there is none."""
    return next((run for run in reference()["runs"] if run["id"] == name), None)
