"""One self-contained page on all finished runs below a folder."""

import base64
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax
import jinja2
import markdown_it
import markupsafe
from PIL import Image

from flowers_jax import reference
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files, folder
from flowers_jax.runs.folder import Summary
from flowers_jax.study import table

NUM_MISTAKES = 12
# Of `table.row`, with their headings.
COLUMNS = {column: shown for column, (_, _, shown) in table.HEADINGS.items() if shown}


def write(root: Path, image_folder: Path | None) -> int:
    """Writes `root/report.html` and returns the number of runs on it.

    Args:
      root: the folder of the runs.
      image_folder: besides `root` the only folder whose images the page may show.

    Raises:
      UserError: no run below `root` is finished.
    """
    found = sorted(path.parent for path in root.rglob("summary.json"))
    workdirs = [workdir for workdir in found if not folder.is_set_aside(workdir)]
    if not workdirs:
        raise UserError(f"{root} holds no finished run: there is no summary.json below it.")
    image_roots = [root] if image_folder is None else [root, image_folder]
    summaries = [folder.read_summary(workdir) or {} for workdir in workdirs]
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
            *((heading, "") for heading in COLUMNS.values()),
            ("state", "text"),
        ],
        runs=[
            describe(root, workdir, summary, number, image_roots)
            for number, (workdir, summary) in enumerate(zip(workdirs, summaries, strict=True))
        ],
        findings=findings(summaries),
    )
    files.write_text(root / "report.html", page)
    return len(workdirs)


def describe(
    root: Path, workdir: Path, summary: Summary, number: int, image_roots: Sequence[Path]
) -> dict[str, Any]:
    """What the template shows of one run."""
    config = summary["config"]
    name = workdir.relative_to(root).as_posix() if workdir != root else root.name
    row = table.row(config["study_run"], [summary])
    cells = [(name, name, "text"), (summary["seed"], str(summary["seed"]), "")]
    for column in COLUMNS:
        value = "" if row[column] is None else row[column]
        cells.append((value, table.cell(row, column), ""))
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
        "settings": flax.traverse_util.flatten_dict(config, sep=".").items(),
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


def findings(summaries: Sequence[Summary]) -> markupsafe.Markup | None:
    """What the clone's documentation found out about the study, as HTML.

    None if no run is one of the study's, or the package does not lie in a clone.
    """
    path = Path(__file__).parents[2] / "docs" / "findings.md"
    of_study = any(reference.run(summary["config"]["study_run"]) for summary in summaries)
    if not of_study or not path.is_file():
        return None
    text = re.sub(r"\A# .*\n", "", path.read_text("utf-8"))  # the page has its own heading
    return markupsafe.Markup(markdown_it.MarkdownIt().render(text))
