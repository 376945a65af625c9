"""One self-contained page on all finished runs below a folder."""

import base64
import contextlib
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jinja2
import markdown_it
import markupsafe
from PIL import Image

from flowers_jax import reference, run
from flowers_jax.data import decode
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files, run_folder
from flowers_jax.runs.run_folder import Summary
from flowers_jax.study import table

NUM_MISTAKES = 12
NUM_RIGHT = 4  # of each class, the surest and as many of the least sure


class Answer(NamedTuple):
    """What a run says of an image: a row of `predictions.csv`, with the highest probability."""

    path: Path
    label: str
    predicted: str
    probability: float


def write(root: Path, image_folder: Path | None) -> int:
    """Writes `root/report.html` and returns the number of runs on it; UserError if there are none.

    The page shows images of `root` and `image_folder` only.
    """
    workdirs = sorted(path.parent for path in root.rglob("summary.json"))
    workdirs = [workdir for workdir in workdirs if not run_folder.is_set_aside(workdir)]
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
    summary = run_folder.read_summary(workdir) or {}
    confidence = workdir / "confidence.png"  # older runs have none
    answers = read_answers(workdir)
    mistakes = _shown(most_confident_mistakes(answers), image_roots)
    right = right_answers(answers)
    return {
        "name": workdir.relative_to(root).as_posix() if workdir != root else root.name,
        "summary": summary,
        "row": table.row(summary["config"]["study_run"], [summary]),
        "curves": _data_url((workdir / "curves.png").read_bytes()),
        "confidence": _data_url(confidence.read_bytes()) if confidence.exists() else None,
        "confusion": _data_url((workdir / "confusion_matrix.png").read_bytes()),
        "mistakes": mistakes,
        "no_heat": _add_heat(workdir, mistakes),
        "right": {name: _shown(found, image_roots) for name, found in right.items()},
        "report": (workdir / "classification_report.txt").read_text("utf-8"),
        "settings": flax.traverse_util.flatten_dict(summary["config"], sep="."),
    }


def read_answers(workdir: Path) -> list[Answer]:
    """What the run says of each validation image."""
    with open(workdir / "predictions.csv", newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    # By position: a class can have the name of another column.
    return [
        Answer(Path(path), label, predicted, max(map(float, probabilities)))
        for path, label, predicted, *probabilities in rows
    ]


def most_confident_mistakes(answers: Sequence[Answer]) -> list[Answer]:
    """The wrong answers of the highest probability."""
    wrong = [answer for answer in answers if answer.label != answer.predicted]
    return sorted(wrong, key=lambda answer: -answer.probability)[:NUM_MISTAKES]


def right_answers(answers: Sequence[Answer]) -> dict[str, list[Answer]]:
    """Of each class the right answers of the highest probability, then those of the lowest."""
    right: dict[str, list[Answer]] = {}
    for answer in sorted(answers, key=lambda answer: -answer.probability):
        if answer.label == answer.predicted:
            right.setdefault(answer.label, []).append(answer)
    return {
        name: found[:NUM_RIGHT] + found[NUM_RIGHT:][-NUM_RIGHT:]
        for name, found in sorted(right.items())
    }


def _shown(answers: Sequence[Answer], image_roots: Sequence[Path]) -> list[dict[str, Any]]:
    """The answers with thumbnails of the images that can be shown."""
    shown = []
    for answer in answers:
        place = _find(answer.path, image_roots)
        thumbnail = None
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            thumbnail = place and _thumbnail(Image.fromarray(decode.read_rgb(str(place))))
        shown.append({**answer._asdict(), "place": place, "thumbnail": thumbnail, "heat": None})
    return shown


def _add_heat(workdir: Path, shown: Sequence[dict[str, Any]]) -> str:
    """Adds Grad-CAM of the predicted class where there is a thumbnail; says why, if it cannot."""
    seen = [entry for entry in shown if entry["thumbnail"]]
    if not seen:
        return ""
    try:
        explanations = run.load(workdir).explain([entry["place"] for entry in seen])
    except UserError as error:
        return str(error)
    for entry, explanation in zip(seen, explanations, strict=True):
        entry["heat"] = _thumbnail(explanation.overlay())
    return ""


def _find(path: Path, image_roots: Sequence[Path]) -> Path | None:
    """Where the image is; None if it is gone or lies outside the folders."""
    for place in (path, *(root / path.parent.name / path.name for root in image_roots)):
        resolved = place.resolve()
        inside = any(resolved.is_relative_to(root.resolve()) for root in image_roots)
        if inside and resolved.is_file():
            return resolved
    return None


def _thumbnail(image: Image.Image) -> str:
    """The image as a data URL."""
    image.thumbnail((192, 192))
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=80)
    return _data_url(buffer.getvalue(), "jpeg")


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
