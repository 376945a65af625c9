"""What is in an image folder: counts, sizes, modes, files that cannot be read, and duplicates.

Duplicates are exact (the same bytes) or near (perceptual hashes that differ in few bits), within a
class, across classes and across the study's split.
"""

import collections
import concurrent.futures
import dataclasses
import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from flowers_jax.data import folder
from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import UserError
from flowers_jax.runs.files import prepare, write_csv, write_image

# Bits of 64 in which the perceptual hashes of near duplicates may differ. Of the flowers, all pairs
# within 4 bits show the same picture; from 5 to 8, half of the pairs do not.
NEAR_BITS = 4


@dataclasses.dataclass(frozen=True)
class File:
    """One file of an image folder; without size and hash if it is not an image."""

    path: str
    digest: str = ""  # SHA-256 of its bytes, hexadecimal; empty if it cannot be opened
    size: tuple[int, int] | None = None  # width and height in pixels
    mode: str = ""  # Pillow's, such as RGB
    hash: int | None = None  # perceptual, 64 bits
    problem: str = ""  # why it cannot be read; empty if it can


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two files that show the same picture, by their places in the index."""

    first: int
    second: int
    kind: str  # 'exact' if the bytes are the same, otherwise 'near'
    bits: int  # in which the perceptual hashes differ


def inspect(path: str) -> File:
    """Opens one file."""
    import imagehash

    digest = ""
    try:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        with Image.open(path) as image:
            size, mode = image.size, image.mode
            bits = imagehash.phash(image.convert("RGB")).hash.ravel()
    except Image.UnidentifiedImageError:
        return File(path, digest, problem="is no image")
    except Image.DecompressionBombError:
        return File(path, digest, problem="claims to be of an absurd size")
    except (OSError, SyntaxError, ValueError) as error:
        return File(path, digest, problem=getattr(error, "strerror", None) or str(error))
    return File(path, digest, size, mode, int.from_bytes(np.packbits(bits).tobytes()))


def duplicates(files: Sequence[File], near_bits: int = NEAR_BITS) -> list[Pair]:
    """All pairs of files with the same bytes or nearly the same perceptual hash."""
    pairs = {}
    by_digest = collections.defaultdict(list)
    for i, file in enumerate(files):
        if file.digest:
            by_digest[file.digest].append(i)
    for places in by_digest.values():
        for i, j in itertools.combinations(places, 2):
            pairs[i, j] = Pair(i, j, "exact", 0)
    readable = np.array([i for i, file in enumerate(files) if file.hash is not None], np.int64)
    hashes = np.array([files[i].hash for i in readable], np.uint64)
    for k, value in enumerate(hashes):
        bits = np.bitwise_count(hashes[k + 1 :] ^ value)
        for offset in np.flatnonzero(bits <= near_bits):
            i, j = int(readable[k]), int(readable[k + 1 + offset])
            pairs.setdefault((i, j), Pair(i, j, "near", int(bits[offset])))
    return [pairs[key] for key in sorted(pairs)]


def contact_sheet(index: ImageFolder, pairs: Sequence[Pair], sides: Sequence[str]) -> Image.Image:
    """The pairs side by side, each image with its class and its side of the split."""
    tile, text, columns = 110, 30, 4
    width, height = 2 * tile + 10, tile + text
    rows = max(1, -(-len(pairs) // columns))
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(sheet)
    for k, pair in enumerate(pairs):
        left, top = (k % columns) * width, (k // columns) * height
        for side, i in enumerate((pair.first, pair.second)):
            with Image.open(index.paths[i]) as image:
                sheet.paste(image.convert("RGB").resize((tile, tile)), (left + side * tile, top))
            caption = f"{index.class_names[index.labels[i]]}\n{sides[i]}"
            draw.text((left + side * tile + 2, top + tile), caption, fill="black")
    return sheet


def audit(root: str, out: Path) -> int:
    """Prints what is in the image folder `root`; writes the lists and the sheet to `out`.

    Returns:
      How many pairs lie across the study's split.
    """
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise UserError("imagehash is not installed; pip install 'flowers-jax[audit]'.") from error
    prepare(out)
    index = folder.scan(root)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        files = list(pool.map(inspect, index.paths))
    sides = split_sides(index)
    pairs = duplicates(files)
    write(out, index, files, pairs, sides)
    leaks = [pair for pair in pairs if sides[pair.first] != sides[pair.second]]
    print("\n".join(describe(index, files, pairs, leaks)))
    print(f"lists and a contact sheet are in {out}")
    return len(leaks)


def split_sides(index: ImageFolder) -> list[str]:
    """For each file of the index, 'training' or 'validation' in the study's split."""
    _, validation = folder.keras_split(index, 0.2, 1337)
    held_out = set(validation.paths)
    return ["validation" if path in held_out else "training" for path in index.paths]


def describe(
    index: ImageFolder, files: Sequence[File], pairs: Sequence[Pair], leaks: Sequence[Pair]
) -> list[str]:
    """The findings, a line each."""
    counts = ", ".join(
        f"{name} {n}" for name, n in zip(index.class_names, index.counts(), strict=True)
    )
    lines = [f"{len(index)} files of {len(index.class_names)} classes: {counts}"]
    images = [file for file in files if file.size is not None]
    if images:
        sizes = np.array([file.size for file in images])
        low, middle, high = (
            "x".join(str(int(n)) for n in q) for q in np.quantile(sizes, [0, 0.5, 1], axis=0)
        )
        lines.append(f"width x height: smallest {low}, median {middle}, largest {high}")
        modes = collections.Counter(file.mode for file in images).most_common()
        lines.append("modes: " + ", ".join(f"{mode} {n}" for mode, n in modes))
    bad = [file for file in files if file.problem]
    lines.append(f"{len(bad)} files cannot be read")
    lines += [f"  {file.path!a} {file.problem}" for file in bad]
    for kind in ("exact", "near"):
        chosen = [pair for pair in pairs if pair.kind == kind]
        across = sum(index.labels[pair.first] != index.labels[pair.second] for pair in chosen)
        leaking = sum(pair.kind == kind for pair in leaks)
        lines.append(
            f"{len(chosen)} {kind} duplicate pairs: {len(chosen) - across} within a class, "
            f"{across} across classes; {leaking} of them across the study's split"
        )
    return lines


def write(
    out: Path,
    index: ImageFolder,
    files: Sequence[File],
    pairs: Sequence[Pair],
    sides: Sequence[str],
) -> None:
    """Writes `files.csv`, `duplicates.csv` and `duplicates.png`."""
    names = [index.class_names[label] for label in index.labels]
    write_csv(
        out / "files.csv",
        ["path", "class", "side", "width", "height", "mode", "sha256", "problem"],
        (
            [file.path, name, side, *(file.size or ("", "")), file.mode, file.digest, file.problem]
            for file, name, side in zip(files, names, sides, strict=True)
        ),
    )
    header = ["kind", "bits", "first", "second", "first class", "second class", "across the split"]
    rows = (
        [pair.kind, pair.bits]
        + [values[i] for values in (index.paths, names) for i in (pair.first, pair.second)]
        + [sides[pair.first] != sides[pair.second]]
        for pair in pairs
    )
    write_csv(out / "duplicates.csv", header, rows)
    shown = [pair for pair in pairs if files[pair.first].size and files[pair.second].size]
    write_image(out / "duplicates.png", contact_sheet(index, shown, sides))
