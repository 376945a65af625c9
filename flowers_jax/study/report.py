"""Writes one self-contained page on all finished runs below a folder.

python scripts/report.py runs/study

The page is RUNS/report.html. The images of the mistakes are shown if they lie in RUNS or in the
folder that --data.dir or the environment variable FLOWERS_DIR names; of a run from another machine,
those that have the same class folder and name there.
"""

import base64
import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import markdown_it
import markupsafe
import runner
from absl import flags
from PIL import Image

from flowers_jax import command, results, study
from flowers_jax.errors import UserError

_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder; default: FLOWERS_DIR.")
NUM_MISTAKES = 12
# Columns of `study.row` that are numbers, their headings and formats.
HEADINGS = {
    "study_best_epoch_val_accuracy": ("study", ".2f"),
    "max_val_accuracy": ("ours", ".2f"),
    "difference": ("difference", "+.2f"),
    "restored_val_accuracy": ("restored", ".2f"),
    "interval_low": ("from", ".1f"),
    "interval_high": ("to", ".1f"),
    "max_train_accuracy": ("training", ".2f"),
    "epochs": ("epochs", ".0f"),
    "best_epoch": ("best epoch", ".0f"),
    "minutes": ("minutes", ".1f"),
    "images_per_second": ("images/s", ".0f"),
}


def main(arguments: Sequence[str]) -> None:
    """Writes the page."""
    if len(arguments) != 2:
        raise UserError("give the folder of the runs: python scripts/report.py runs/study.")
    root = Path(arguments[1])
    found = sorted(path.parent for path in root.rglob("summary.json"))
    workdirs = [workdir for workdir in found if not results.is_set_aside(workdir)]
    if not workdirs:
        raise UserError(f"{root} holds no finished run: there is no summary.json below it.")
    image_roots = [root]
    if _DATA_DIR.value or os.environ.get("FLOWERS_DIR"):
        image_roots.append(Path(_DATA_DIR.value or os.environ["FLOWERS_DIR"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        title=f"flowers_jax: {root.name}",
        headings=[
            ("run", "text"),
            ("seed", ""),
            *((heading, "") for heading, _ in HEADINGS.values()),
            ("state", "text"),
        ],
        runs=[describe(root, w, number, image_roots) for number, w in enumerate(workdirs)],
        findings=findings(),
    )
    results.write_text(root / "report.html", page)
    print(f"{root / 'report.html'}: {len(workdirs)} runs")


def describe(root: Path, workdir: Path, number: int, image_roots: Sequence[Path]) -> dict[str, Any]:
    """What the template shows of one run."""
    summary = results.read_summary(workdir)
    config = summary["config"]
    name = workdir.relative_to(root).as_posix() if workdir != root else root.name
    row = study.row(config["study_run"], [summary])
    cells = [(name, name, "text"), (summary["seed"], str(summary["seed"]), "")]
    for column, (_, spec) in HEADINGS.items():
        value = row[column]
        cells.append(("", "", "") if value is None else (value, format(value, spec), ""))
    cells.append((row["state"], row["state"], "text"))
    mistakes = list(most_confident_mistakes(workdir, image_roots))
    unseen = sum(mistake["thumbnail"] is None for mistake in mistakes)
    return {
        "number": number,
        "name": name,
        "cells": cells,
        "lead": (
            f"{config['model']} with {config['optimizer']['name']} on {summary['data_source']}: "
            f"{summary['num_train']} training and {summary['num_validation']} validation images; "
            f"the weights of epoch {summary['reported_epoch']} of {summary['epochs_run']}, on "
            f"{summary['device']}."
        ),
        "curves": _data_url((workdir / "curves.png").read_bytes()),
        "confusion": _data_url((workdir / "confusion_matrix.png").read_bytes()),
        "mistakes": mistakes,
        "without_pictures": unseen
        and f"{unseen} of these images are not below the folders that the report may read; name "
        "theirs with --data.dir.",
        "report": (workdir / "classification_report.txt").read_text(),
        "settings": list(_flatten(config)),
    }


def most_confident_mistakes(
    workdir: Path, image_roots: Sequence[Path]
) -> Iterator[dict[str, str | None]]:
    """The wrong predictions of the highest probability."""
    with open(workdir / "predictions.csv", newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["label"] != row["predicted"]]
    wrong.sort(key=lambda row: -float(row[row["predicted"]]))
    for row in wrong[:NUM_MISTAKES]:
        yield {
            "file": Path(row["path"]).name,
            "label": row["label"],
            "predicted": row["predicted"],
            "percent": f"{100 * float(row[row['predicted']]):.1f}",
            "thumbnail": _thumbnail(Path(row["path"]), image_roots),
        }


def _thumbnail(path: Path, image_roots: Sequence[Path]) -> str | None:
    """The image as a data URL; None if it is gone or lies outside the folders."""
    for place in (path, *(root / path.parent.name / path.name for root in image_roots)):
        resolved = place.resolve()
        if not any(resolved.is_relative_to(root.resolve()) for root in image_roots):
            continue
        try:
            with Image.open(resolved) as image:
                small = image.convert("RGB")
        except (OSError, SyntaxError, ValueError):
            continue
        small.thumbnail((192, 192))
        buffer = io.BytesIO()
        small.save(buffer, format="jpeg", quality=80)
        return _data_url(buffer.getvalue(), "jpeg")
    return None


def _data_url(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def findings() -> markupsafe.Markup:
    """The README's section, as HTML."""
    readme = (runner.ROOT / "README.md").read_text()
    section = readme.split("\n## Findings\n")[1].split("\n## ")[0]
    return markupsafe.Markup(markdown_it.MarkdownIt().render(section))


if __name__ == "__main__":
    command.run(main)
