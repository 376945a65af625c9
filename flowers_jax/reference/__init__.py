"""The original study: settings, logged histories and reports of its runs, from `memoria.json`."""

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any


@functools.cache
def study() -> dict[str, Any]:
    """The whole file: `dataset`, `conventions`, `architectures` and `runs`."""
    text = resources.files(__name__).joinpath("memoria.json").read_text("utf-8")
    return json.loads(text)


def run(name: str) -> dict[str, Any] | None:
    """Settings, logged history and report of a run; None if there is none of this name."""
    return next((run for run in study()["runs"] if run["id"] == name), None)


def history(name: str) -> Mapping[str, Sequence[float]] | None:
    """The logged columns of a run, by name; None if there are none."""
    return (run(name) or {}).get("measured", {}).get("history")
