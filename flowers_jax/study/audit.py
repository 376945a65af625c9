"""What is in an image folder: counts, sizes, modes, files that cannot be read, and duplicates.

Duplicates are exact (the same bytes) or near (perceptual hashes that differ in few bits), within a
class, across classes and across the study's split.
"""

import collections
import concurrent.futures
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from flowers_jax.data import decode, folder
from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import UserError
from flowers_jax.runs.files import prepare, write_csv, write_image

# Bits of 64 in which the perceptual hashes of near duplicates may differ. Of the flowers, all pairs
# within 4 bits show the same picture; from 5 to 8, half of the pairs do not.
NEAR_BITS = 4
MAX_SHOWN = 100  # pairs on the contact sheet


class File(NamedTuple):
    """One file of an image folder; without size and hash if it cannot be read."""

    path: str
    digest: str = ""  # SHA-256 of its bytes, hexadecimal; empty if it cannot be opened
    size: tuple[int, int] | None = None  # width and height in pixels
    mode: str = ""  # Pillow's, such as RGB
    hash: int | None = None  # perceptual, 64 bits
    problem: str = ""  # why it cannot be trained on; empty if it can


class Pair(NamedTuple):
    """Two files that show the same picture, by their places in the index."""

    first: int
    second: int
    kind: str  # 'exact' if the bytes are the same, otherwise 'near'
    bits: int  # in which the perceptual hashes differ


def inspect(paths: Sequence[str]) -> list[File]:
    """Reads all files; those that training cannot decode have a problem."""
    try:
        import imagehash
    except ImportError as error:
        raise UserError("imagehash is not installed; pip install 'flowers-jax[audit]'.") from error

    def read(path: str, problem: str) -> File:
        digest = ""
        try:
            if Path(path).is_file():  # reading a pipe would never end
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            if problem:
                return File(path, digest, problem=problem)
            bits = imagehash.phash(Image.fromarray(decode.read_rgb(path))).hash
            with Image.open(path) as image:
                size, mode = image.size, image.mode
        except (OSError, SyntaxError, ValueError):  # of damaged files Pillow accepts fewer
            return File(path, digest, problem=problem)
        return File(path, digest, size, mode, int.from_bytes(np.packbits(bits).tobytes()))

    _, problems = decode.decode(paths, 8, "bilinear")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(read, paths, (problems.get(i, "") for i in range(len(paths)))))


def duplicates(files: Sequence[File]) -> list[Pair]:
    """All pairs of files with the same bytes or nearly the same perceptual hash."""
    _, contents = np.unique([file.digest for file in files], return_inverse=True)
    opened = np.array([file.digest != "" for file in files])
    readable = np.array([file.hash is not None for file in files])
    hashes = np.array([file.hash or 0 for file in files], np.uint64)
    pairs = []
    for i in range(len(files)):
        later = slice(i + 1, None)
        bits = np.bitwise_count(hashes[later] ^ hashes[i])
        exact = opened[i] & (contents[later] == contents[i])
        near = readable[i] & readable[later] & (bits <= NEAR_BITS)
        for k in np.flatnonzero(exact | near):
            kind = "exact" if exact[k] else "near"
            pairs.append(Pair(i, i + 1 + int(k), kind, int(bits[k])))
    return pairs


def contact_sheet(images: Sequence[tuple[str, str]]) -> Image.Image:
    """Image files with their captions, in pairs side by side."""
    tile, text, columns = 110, 30, 8
    num_rows = max(1, -(-len(images) // columns))
    size = columns * tile + columns // 2 * 10, num_rows * (tile + text)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for k, (path, caption) in enumerate(images):
        row, column = divmod(k, columns)
        left, top = column * tile + column // 2 * 10, row * (tile + text)
        image = Image.fromarray(decode.read_rgb(path))
        sheet.paste(image.resize((tile, tile)), (left, top))
        draw.text((left + 2, top + tile), caption, fill="black")
    return sheet


def audit(root: Path, out: Path) -> int:
    """Prints what is in the image folder `root`; writes two lists and a contact sheet to `out`.

    Returns how many pairs lie across the study's split.
    """
    folder.require_outside(out, root)
    prepare(out)
    index = folder.scan(root)
    files, sides = inspect(index.paths), split_sides(index)
    names = [index.class_names[label] for label in index.labels]
    header = ["path", "class", "side", "width", "height", "mode", "sha256", "problem"]
    rows = (
        [file.path, name, side, *(file.size or ("", "")), file.mode, file.digest, file.problem]
        for file, name, side in zip(files, names, sides, strict=True)
    )
    write_csv(out / "files.csv", header, rows)
    pairs = duplicates(files)
    header = ["kind", "bits", "first", "second", "first class", "second class", "across the split"]
    rows = (
        [kind, bits, index.paths[i], index.paths[j], names[i], names[j], sides[i] != sides[j]]
        for i, j, kind, bits in pairs
    )
    write_csv(out / "duplicates.csv", header, rows)
    images = [pair[:2] for pair in pairs if files[pair.first].size and files[pair.second].size]
    shown = [i for pair in images[:MAX_SHOWN] for i in pair]
    sheet = contact_sheet([(index.paths[i], f"{names[i]}\n{sides[i]}") for i in shown])
    write_image(out / "duplicates.png", sheet)
    print("\n".join(describe(index, files, pairs, sides)))
    left_out = len(images[MAX_SHOWN:])
    note = f"; the sheet shows {MAX_SHOWN} pairs and leaves out {left_out}" if left_out else ""
    print(f"lists and a contact sheet are in {out}{note}")
    return sum(sides[pair.first] != sides[pair.second] for pair in pairs)


def split_sides(index: ImageFolder) -> list[str]:
    """For each file of the index, 'training' or 'validation' in the study's split."""
    _, validation = folder.keras_split(index, 0.2, 1337)
    sides = dict.fromkeys(index.paths, "training") | dict.fromkeys(validation.paths, "validation")
    return list(sides.values())


def describe(
    index: ImageFolder, files: Sequence[File], pairs: Sequence[Pair], sides: Sequence[str]
) -> list[str]:
    """The findings, a line each."""
    counts = zip(index.class_names, index.counts(), strict=True)
    listed = ", ".join(f"{name} {count}" for name, count in counts)
    lines = [f"{len(index)} files of {len(index.class_names)} classes: {listed}"]
    images = [file for file in files if file.size is not None]
    if images:
        quantiles = np.quantile([file.size for file in images], [0, 0.5, 1], axis=0).astype(int)
        low, middle, high = (f"{width}x{height}" for width, height in quantiles)
        lines.append(f"width x height: smallest {low}, median {middle}, largest {high}")
        modes = collections.Counter(file.mode for file in images).most_common()
        lines.append("modes: " + ", ".join(f"{mode} {n}" for mode, n in modes))
    bad = [f"  {file.path!a} {file.problem}" for file in files if file.problem]
    lines += [f"{len(bad)} files cannot be read", *bad]
    for kind in ("exact", "near"):
        chosen = [(pair.first, pair.second) for pair in pairs if pair.kind == kind]
        across = sum(index.labels[i] != index.labels[j] for i, j in chosen)
        leaking = sum(sides[i] != sides[j] for i, j in chosen)
        lines.append(
            f"{len(chosen)} {kind} duplicate pairs: {len(chosen) - across} within a class, "
            f"{across} across classes; {leaking} of them across the study's split"
        )
    return lines
