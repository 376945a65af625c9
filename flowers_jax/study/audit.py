"""What is in an image folder: counts, sizes, modes, files that cannot be read, and duplicates.

Duplicates are those of `data.duplicates`: within a class, across classes and across the study's
split.
"""

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from flowers_jax.data import decode, duplicates, folder
from flowers_jax.data.duplicates import File, Pair
from flowers_jax.data.folder import ImageFolder
from flowers_jax.runs.files import prepare, write_csv, write_image

MAX_SHOWN = 100  # pairs on the contact sheet


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
    files, sides = duplicates.inspect(index.paths), split_sides(index)
    names = [index.class_names[label] for label in index.labels]
    header = ["path", "class", "side", "width", "height", "mode", "sha256", "problem"]
    rows = (
        [file.path, name, side, *(file.size or ("", "")), file.mode, file.digest, file.problem]
        for file, name, side in zip(files, names, sides, strict=True)
    )
    write_csv(out / "files.csv", header, rows)
    pairs = duplicates.find(files)
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
