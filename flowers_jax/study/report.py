"""One self-contained page on all finished runs below a folder."""

import base64
import csv
import io
import re
from collections.abc import Sequence
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


def write(root: Path, image_folder: Path | None) -> int:
    """Writes `root/report.html` and returns the number of runs on it; UserError if there are none.

    The page shows images of `root` and `image_folder` only.
    """
    workdirs = sorted(path.parent for path in root.rglob("summary.json"))
    workdirs = [workdir for workdir in workdirs if not folder.is_set_aside(workdir)]
    if not workdirs:
        raise UserError(f"{root} has no finished run below it (no summary.json).")
    image_roots = [root] if image_folder is None else [root, image_folder]
    runs = [describe(root, workdir, image_roots) for workdir in workdirs]
    source = Path(__file__).with_name("report.html.j2").read_text("utf-8")
    template = jinja2.Template(
        source, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    page = template.render(
        title=f"flowers_jax: {root.name}",
        columns={column: shown for column, (_, _, shown) in table.HEADINGS.items() if shown},
        cell=table.cell,
        runs=runs,
        findings=findings([run["summary"] for run in runs]),
    )
    files.write_text(root / "report.html", page)
    return len(runs)


def describe(root: Path, workdir: Path, image_roots: Sequence[Path]) -> dict[str, Any]:
    """What the template shows of one run."""
    summary = folder.read_summary(workdir) or {}
    confidence = workdir / "confidence.png"  # older runs have none
    return {
        "name": workdir.relative_to(root).as_posix() if workdir != root else root.name,
        "summary": summary,
        "row": table.row(summary["config"]["study_run"], [summary]),
        "curves": _data_url((workdir / "curves.png").read_bytes()),
        "confidence": _data_url(confidence.read_bytes()) if confidence.exists() else None,
        "confusion": _data_url((workdir / "confusion_matrix.png").read_bytes()),
        "mistakes": most_confident_mistakes(workdir, image_roots),
        "report": (workdir / "classification_report.txt").read_text("utf-8"),
        "settings": flax.traverse_util.flatten_dict(summary["config"], sep="."),
    }


def most_confident_mistakes(workdir: Path, image_roots: Sequence[Path]) -> list[dict[str, Any]]:
    """The wrong predictions of the highest probability."""
    with open(workdir / "predictions.csv", newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    # By position: a class can have the name of another column.
    wrong = [
        (max(map(float, probabilities)), Path(path), label, predicted)
        for path, label, predicted, *probabilities in rows
        if label != predicted
    ]
    wrong.sort(key=lambda mistake: -mistake[0])
    names = ("probability", "path", "label", "predicted", "thumbnail")
    return [
        dict(zip(names, (*mistake, _thumbnail(mistake[1], image_roots)), strict=True))
        for mistake in wrong[:NUM_MISTAKES]
    ]


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
