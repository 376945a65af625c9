"""Files that are never half written, and full disks that are named."""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from flowers_jax.process.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces the file atomically.

    Raises:
      UserError: it cannot be written; the old file, if any, is intact.
    """
    # Each process has its own: several may write a study's table at once.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
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


def write_text(path: Path, text: str) -> None:
    """Replaces a text file atomically; file names that are not UTF-8 are written with escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Writes `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401
    """What the file holds; None if there is no such file.

    Raises:
      UserError: it is damaged or cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read ({error}); remove it.") from error


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows under a header, numbers in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header; empty if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def write_figure(path: Path, figure: "Figure") -> None:
    """Writes a figure as PNG."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class may have a name that the font cannot write.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())


def write_image(path: Path, image: Image.Image) -> None:
    """Writes a picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def prepare(folder: Path) -> None:
    """Makes a folder that can be written.

    Raises:
      UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be written ({error.strerror}); choose another one."
        ) from error


def prepare_file(path: Path) -> None:
    """Makes the folder of a file that can be written.

    Raises:
      UserError: it cannot, or the path is a folder, a device or a pipe.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"{path} is {what}; name a file to write.")
    prepare(path.parent)


def require_space(folder: Path, num_bytes: int) -> None:
    """Raises UserError unless the disk of `folder` has room for a checkpoint of `num_bytes`."""
    free = shutil.disk_usage(folder).free
    needed = num_bytes + 2**20  # and the small files
    if free < needed:
        raise _disk_full(folder, f", {needed / 1e6:.0f} MB are needed")


@contextlib.contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turns the file system's error of a full disk into a sentence."""
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
