"""The images of each split of a run: names and content hashes, in `images.csv`."""

import concurrent.futures
import hashlib
from pathlib import Path

from flowers_jax.data.splits import Files
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files

HEADER = ("split", "name", "sha256")


def record(workdir: Path, splits: Files) -> None:
    """Writes `images.csv`, or compares with it when the run goes on; the folder may have moved.

    Raises:
      UserError: the run began with other images.
    """
    path = workdir / "images.csv"
    rows = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for split, images in splits._asdict().items():
            if images is not None:
                digests = pool.map(_digest, images.paths)
                rows += [[split, *row] for row in zip(images.names, digests, strict=True)]
    old = {(row["split"], row["name"]): row["sha256"] for row in files.read_csv(path)}
    new = {(split, name): digest for split, name, digest in rows}
    is_run = (workdir / "config.json").exists()  # and not only a start that failed
    if is_run and old and old != new:
        differing = [
            f"{name} is {what}"
            for keys, what in (
                (old.keys() - new.keys(), "gone from the {} images"),
                (new.keys() - old.keys(), "new among the {} images"),
                ({key for key in old.keys() & new.keys() if old[key] != new[key]}, "changed"),
            )
            for name, what in sorted((name, what.format(split)) for split, name in keys)
        ]
        raise UserError(
            f"{workdir} holds a run on other images ({len(differing)} differences: "
            f"{'; '.join(differing[:3])}); give it the same images, choose another --workdir, or "
            "begin anew with --restart."
        )
    files.write_csv(path, HEADER, rows)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
