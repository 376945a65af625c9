"""The contract of a run folder: whose it is, which run it holds, and what others may read of it."""

import contextlib
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
from ml_collections import ConfigDict

from flowers_jax.process.errors import UserError
from flowers_jax.runs import files

Summary = dict[str, Any]

log = logging.getLogger(__name__)


class Busy(UserError):
    """Another live process trains the run in this folder."""


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Keeps a second process from training in an existing run folder.

    The operating system releases the lock when its holder ends, however it ends.

    Raises:
      Busy: another process holds it.
    """
    holder = workdir / ".holder"
    lock = filelock.FileLock(workdir / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        name = holder.read_text("utf-8") if holder.exists() else "another process"
        raise Busy(
            f"{workdir} is being trained by {name}; wait for it or choose another --workdir."
        ) from error
    except NotImplementedError:
        log.warning("%s lies on a file system without locks: start no second run there", workdir)
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def read_config(workdir: Path) -> dict[str, Any]:
    """What `config.json` holds.

    Raises:
      UserError: this is not a run folder.
    """
    return _read_json(workdir, "config.json")


def read_class_names(workdir: Path) -> tuple[str, ...]:
    """The classes of the run.

    Raises:
      UserError: this is not a run folder.
    """
    return tuple(_read_json(workdir, "classes.json"))


def _read_json(workdir: Path, name: str) -> Any:  # noqa: ANN401
    try:
        return json.loads((workdir / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir} is not a run folder: it has no readable {name}.") from error


def read_summary(workdir: Path) -> Summary | None:
    """What `summary.json` holds; None if the run is not finished."""
    return files.read_json(workdir / "summary.json")


def json_config(config: ConfigDict) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return json.loads(config.to_json())


def require_same_settings(workdir: Path, old: ConfigDict, new: ConfigDict) -> None:
    """Raises UserError if the settings of the run in the folder differ from the new ones.

    The images may lie elsewhere, and a run may be given more epochs.
    """
    before, now = json_config(old), json_config(new)
    before["data"]["dir"] = now["data"]["dir"]
    before["max_epochs"] = max(before["max_epochs"], now["max_epochs"])
    before["workdir"] = now["workdir"]
    differing = differences(before, now)
    if differing:
        raise UserError(
            f"{workdir} holds a run with other settings ({'; '.join(differing)}); move it away, "
            "choose another --workdir, or begin anew with --restart."
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys whose values differ, with both values."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {a!r} and is {b!r}")
    return found


def describe(
    workdir: Path, config: ConfigDict, class_names: Sequence[str], model_table: str
) -> None:
    """Makes the folder that of a run: writes `config.json`, `classes.json` and `model.txt`.

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
    files.write_json(workdir / "classes.json", list(class_names))
    files.write_json(workdir / "config.json", json_config(config))
    files.write_text(workdir / "model.txt", model_table)
    (workdir / "summary.json").unlink(missing_ok=True)  # of fewer epochs


def set_aside(workdir: Path) -> Path | None:
    """Renames an existing run folder; returns its new name.

    Raises:
      UserError: the folder holds something else, or cannot be renamed.
      Busy: another process trains the run.
    """
    if not workdir.exists():
        return None
    if not (workdir / "config.json").is_file() and any(workdir.iterdir()):
        raise UserError(
            f"{workdir} is not a run folder (it has no config.json), so --restart leaves it as it "
            "is; choose another --workdir."
        )
    workdir = workdir.resolve()
    if workdir == Path.cwd():
        raise UserError(f"{workdir} is the current folder; start --restart from another one.")
    number = next(n for n in itertools.count(1) if not _numbered(workdir, n).exists())
    with lock(workdir):
        try:
            return workdir.rename(_numbered(workdir, number))
        except OSError as error:
            raise UserError(
                f"{workdir} cannot be renamed ({error.strerror}); choose another --workdir."
            ) from error


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
