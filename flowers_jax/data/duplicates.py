"""Image files that show the same picture.

Duplicates are exact (the same bytes) or near (perceptual hashes that differ in few bits).
"""

import concurrent.futures
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image
from scipy import sparse

from flowers_jax.data import decode
from flowers_jax.process.errors import UserError

# Bits of 64 in which the perceptual hashes of near duplicates may differ. Of the flowers, all pairs
# within 4 bits show the same picture; from 5 to 8, half of the pairs do not.
NEAR_BITS = 4


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


def find(files: Sequence[File]) -> list[Pair]:
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


def groups(pairs: Sequence[Pair], num_files: int) -> Int[np.ndarray, " num_files"]:
    """For each file the number of its group, from 0: duplicates, and theirs, share one."""
    ends = [pair.first for pair in pairs], [pair.second for pair in pairs]
    graph = sparse.coo_array((np.ones(len(pairs)), ends), (num_files, num_files))
    return sparse.csgraph.connected_components(graph, directed=False)[1]
