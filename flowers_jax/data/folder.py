"""Index of an image folder, and the study's split.

An image folder has one sub-folder per class. Files are listed, ordered and split as by Keras'
`image_dataset_from_directory`, which gives the study's split file by file.
"""

import contextlib
import dataclasses
import glob
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from flowers_jax.process.errors import UserError

# The endings that Keras lists, and the other formats that Pillow reads.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp", ".tif", ".tiff", ".avif")
# Folders that systems make beside or among images; like hidden ones they are never classes.
SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__pycache__"}
# Names of the parts of a folder that is split already, and the split that each is.
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
PARTS |= dict.fromkeys(("val", "valid", "validation"), "validation")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
    """Image files with their classes.

    Attributes:
      paths: file paths.
      labels: of each file, an index into `class_names`, int32.
      class_names: sorted names of the class folders.
    """

    paths: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageFolder":
        """The files at `indices`, in that order."""
        return ImageFolder(
            tuple(self.paths[i] for i in indices), self.labels[indices], self.class_names
        )

    @property
    def names(self) -> list[str]:
        """Class and path within it of each file, which do not depend on where the folder lies."""
        classes = (self.class_names[label] for label in self.labels)
        return [
            path[path.rindex(f"{os.sep}{name}{os.sep}") + 1 :].replace(os.sep, "/")
            for path, name in zip(self.paths, classes, strict=True)
        ]

    def counts(self) -> Int[np.ndarray, " classes"]:
        """Number of files per class."""
        return np.bincount(self.labels, minlength=len(self.class_names))


def scan(root: str | os.PathLike, class_names: Sequence[str] | None = None) -> ImageFolder:
    """Lists the images below `root`, one class per sub-folder.

    Classes and, within a class, folders and file names are sorted as strings. Hidden files and
    folders and those of systems are ignored, and so are links to images in the folder itself; the
    log names them. A root whose only content is one folder of class folders stands for that folder
    (Kaggle's `flowers-recognition/flowers`).

    Args:
      root: the image folder.
      class_names: those that the folder's classes are matched with, by name. It may lack some,
        which the log names.

    Raises:
      UserError: a class is not among `class_names`, or there are fewer than two if these are not
        given; an empty class, an unreadable folder, a folder that links to one already listed, a
        folder that is split into `train`, `val` and `test`, or class folders listed a second time
        inside one of them (Kaggle's archive once held `flowers/flowers`).
    """
    with _readable(root):
        root, classes = _top(Path(root))
        _require_classes(root, classes, class_names)
        listing = _Listing(root)
        listings = [listing.images_of(folder) for folder in classes]
    listings = listing.without_links(listings)
    listing.report()
    empty = [folder.name for folder, files in zip(classes, listings, strict=True) if not files]
    if empty:
        raise UserError(
            f"{root} has class folders without images ({', '.join(empty)}); "
            f"add images ({', '.join(EXTENSIONS)}) or remove the folders."
        )
    found = [folder.name for folder in classes]
    names = tuple(found if class_names is None else class_names)
    missing = [name for name in names if name not in found]
    if missing:
        log.warning("%s has no images of %s", root, ", ".join(missing))
    labels = np.array([names.index(name) for name in found], np.int32)
    return ImageFolder(
        paths=tuple(path for files in listings for path in files),
        labels=np.repeat(labels, [len(files) for files in listings]),
        class_names=names,
    )


def images_below(folder: str | os.PathLike) -> list[str]:
    """All image files in a folder and its sub-folders, in the order of `scan`.

    Raises:
      UserError: there is none, or a folder cannot be read.
    """
    folder = Path(folder)
    with _readable(folder):
        listing = _Listing(folder)
        paths = listing.images_of(folder)
    listing.report()
    if not paths:
        raise UserError(f"{folder} holds no images ({', '.join(EXTENSIONS)}).")
    return paths


def parts(root: str | os.PathLike) -> dict[str, Path]:
    """The folders `train`, `validation` and `test` of a folder that is split already.

    Empty for a folder of class folders, one of which may have such a name.

    Raises:
      UserError: there are other folders beside them, two for one split, or none to train on.
    """
    with _readable(root):
        root, folders = _top(Path(root))
    found = {path: PARTS[path.name.lower()] for path in folders if path.name.lower() in PARTS}
    if len(found) < 2:
        return {}
    names = ", ".join(path.name for path in folders)
    if len(found) < len(folders) or len(set(found.values())) < len(found):
        raise UserError(
            f"{root} is split already, but not into one folder each for training, validation and "
            f"test images ({names}); rename or remove the others."
        )
    if "train" not in found.values():
        raise UserError(f"{root} is split already ({names}), but has no training images (train).")
    return {split: path for path, split in found.items()}


@contextlib.contextmanager
def _readable(root: str | os.PathLike) -> Iterator[None]:
    """Turns the file system's errors into a sentence."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror}.") from error


def _top(root: Path) -> tuple[Path, list[Path]]:
    """The folder, or the only one in it if that holds folders, and its sub-folders."""
    folders = _subfolders(root)
    if len(folders) == 1 and (inner := _subfolders(folders[0])):
        return folders[0], inner
    return root, folders


def image_paths(name: str) -> Iterator[str]:
    """The files that an argument names: a file, those below a folder, or those of a glob.

    Raises:
      UserError: a folder or a glob without images, or an empty name.
    """
    if not name:  # an unset variable of a shell; as a path it would be the current folder
        raise UserError("an image has an empty name; give files, folders or globs.")
    path = Path(name).expanduser()
    if path.is_dir():
        yield from images_below(path)
    elif path.exists() or not glob.has_magic(name):
        yield str(path)
    else:
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise UserError(f"no file matches {name!r}.")
        for match in found:
            yield from images_below(match) if Path(match).is_dir() else [match]


def _require_classes(
    root: Path, classes: Sequence[Path], known: Sequence[str] | None = None
) -> None:
    """Raises UserError unless these folders can be the classes of `root`, all of them known."""
    names = {folder.name for folder in classes}
    if not classes:
        raise UserError(f"{root} holds no class folders; expected a folder of images per class.")
    if len({name.lower() for name in names} & PARTS.keys()) > 1:
        raise UserError(
            f"{root} is split already ({', '.join(sorted(names))}), and these are not classes; "
            "name one of them, or merge them into one folder per class."
        )
    unknown = sorted(names.difference(names if known is None else known))
    if unknown:
        raise UserError(
            f"{root} has unknown classes ({', '.join(unknown)}); known are "
            f"{', '.join(known or ())}. Rename or remove these folders."
        )
    if len(classes) == 1 and known is None:
        raise UserError(
            f"{root} holds a single class ({classes[0].name}); there must be two or more."
        )
    for folder in classes:
        try:
            folder.name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the class folder {str(folder)!a} has a name that is not "
                f"{sys.getfilesystemencoding()}; rename it, or set PYTHONUTF8=1 if it is UTF-8."
            ) from error
        if len(names & {inner.name for inner in _subfolders(folder)}) > 1:
            raise UserError(
                f"{folder} repeats the class folders beside it, so every image would count "
                f"twice; use {folder} itself as the data folder or remove it."
            )


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` that can be classes, sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(Path(e) for e in entries if e.is_dir() and not _is_ignored(e.name))


HIDDEN = "hidden or made by a system"
NOT_AN_IMAGE = "not an image by its name"
LINK = "a link to an image that is listed"


class _Listing:
    """Lists class folders, and remembers what it has listed and what it has ignored."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, str] = {}  # by their real path
        hidden = [str(p) for p in root.iterdir() if p.is_dir() and _is_ignored(p.name)]
        self._ignored: dict[str, list[str]] = {HIDDEN: hidden, NOT_AN_IMAGE: [], LINK: []}

    def images_of(self, folder: Path) -> list[str]:
        """All image files below a class folder, in Keras' order."""
        images = []
        for parent, names in sorted(self._walk(folder)):
            for name in sorted(names):
                path = os.path.join(parent, name)
                if _is_ignored(name):
                    self._ignored[HIDDEN].append(path)
                elif not name.lower().endswith(EXTENSIONS):
                    self._ignored[NOT_AN_IMAGE].append(path)
                else:
                    images.append(path)
        return images

    def _walk(self, folder: Path) -> Iterator[tuple[str, list[str]]]:
        def fail(error: OSError) -> None:
            raise error

        for parent, folders, names in os.walk(folder, followlinks=True, onerror=fail):
            known = self._folders.setdefault(os.path.realpath(parent), parent)
            if known != parent:
                raise UserError(
                    f"{parent} is a link to {known}, so its images would count twice; remove it."
                )
            hidden = [name for name in folders if _is_ignored(name)]
            self._ignored[HIDDEN] += [os.path.join(parent, n) for n in hidden]
            folders[:] = [name for name in folders if name not in hidden]
            yield parent, names

    def without_links(self, listings: Sequence[list[str]]) -> list[list[str]]:
        """The listings without links to images that are listed themselves."""
        links = {path for files in listings for path in files if os.path.islink(path)}
        if not links:  # thousands of real paths take a while
            return list(listings)
        own = {os.path.realpath(p) for files in listings for p in files if p not in links}
        copies = {path for path in links if os.path.realpath(path) in own}
        self._ignored[LINK] += sorted(copies)
        return [[path for path in files if path not in copies] for files in listings]

    def report(self) -> None:
        """Names in the log what was ignored."""
        for why, ignored in self._ignored.items():
            paths = list(dict.fromkeys(ignored))
            if paths:
                shown = ", ".join(ascii(os.path.relpath(path, self._root)) for path in paths[:5])
                more = " ..." if len(paths) > 5 else ""
                log.warning("%s: %d ignored (%s): %s%s", self._root, len(paths), why, shown, more)


def keras_split(
    index: ImageFolder, validation_fraction: float, seed: int
) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation files as Keras 2 and 3 choose and order them.

    The whole list is shuffled by `RandomState(seed)`; the last `int(fraction * n)` validate
    (`keras.utils.image_dataset_from_directory`). The study used 0.2 and seed 1337.

    Raises:
      UserError: one of the two would be empty.
    """
    order = np.arange(len(index))
    np.random.RandomState(seed).shuffle(order)
    num_train = len(index) - int(validation_fraction * len(index))
    if not 0 < num_train < len(index):
        raise UserError(
            f"validation_fraction={validation_fraction} of {len(index)} images leaves "
            "a split empty; use more images or another fraction."
        )
    return index.take(order[:num_train]), index.take(order[num_train:])


def require_outside(target: Path, root: Path) -> None:
    """Raises UserError if `target`, which is to be written, is the image folder or lies in it."""
    if target.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{target} lies in the image folder {root}, where it would be taken for a class; "
            "choose a folder outside."
        )
