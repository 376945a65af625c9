"""Index of an image folder and its splits.

An image folder has one sub-folder per class. Files are listed, ordered and split as by Keras'
`image_dataset_from_directory`, which gives the study's split file by file.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from flowers_jax.process.errors import UserError

# Keras lists files with these endings.
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
SPLITS = ("keras", "holdout", "none")

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
    labels: Int[np.ndarray, "n"]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageFolder":
        """The files at `indices`, in that order."""
        return ImageFolder(
            tuple(self.paths[i] for i in indices), self.labels[indices], self.class_names
        )

    def counts(self) -> Int[np.ndarray, "classes"]:
        """Number of files per class."""
        return np.bincount(self.labels, minlength=len(self.class_names))


def scan(root: str | os.PathLike) -> ImageFolder:
    """Lists the images below `root`, one class per sub-folder.

    Classes and, within a class, folders and file names are sorted as strings; hidden folders are
    not classes. A root whose only content is one folder of class folders stands for that folder
    (Kaggle's `flowers-recognition/flowers`).

    Raises:
      UserError: no class folders, an empty class, an unreadable folder, a folder that links back
        to one already listed, or class folders listed a second time inside one of them (Kaggle's
        archive once held `flowers/flowers`).
    """
    root = Path(root)
    try:
        classes = _subfolders(root)
        if len(classes) == 1 and _subfolders(classes[0]):
            root, classes = classes[0], _subfolders(classes[0])
        if not classes:
            raise UserError(f"{root} holds no class folders; expected one folder of images each.")
        names = {folder.name for folder in classes}
        for folder in classes:
            if len(names & {inner.name for inner in _subfolders(folder)}) > 1:
                raise UserError(
                    f"{folder} repeats the class folders beside it, so every image would count "
                    f"twice; use {folder} itself as the data folder or remove it."
                )
        listings = [_image_files(folder) for folder in classes]
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {error.strerror}.") from error
    empty = [folder.name for folder, files in zip(classes, listings, strict=True) if not files]
    if empty:
        raise UserError(
            f"{root} has class folders without images ({', '.join(empty)}); "
            f"add images ({', '.join(EXTENSIONS)}) or remove the folders."
        )
    return ImageFolder(
        paths=tuple(path for files in listings for path in files),
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), [len(f) for f in listings]),
        class_names=tuple(folder.name for folder in classes),
    )


def _subfolders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _image_files(folder: Path) -> list[str]:
    """All image files below `folder`, in Keras' order; other files are named in the log."""

    def fail(error: OSError) -> None:
        raise error

    def walk() -> Iterator[tuple[str, list[str]]]:
        seen: dict[str, str] = {}
        for parent, _, names in os.walk(folder, followlinks=True, onerror=fail):
            known = seen.setdefault(os.path.realpath(parent), parent)
            if known != parent:
                raise UserError(
                    f"{parent} is a link to {known}, so its images would count twice; remove it."
                )
            yield parent, names

    files: list[str] = []
    others: list[str] = []
    for parent, names in sorted(walk(), key=lambda entry: entry[0]):
        for name in sorted(names):
            listed = files if name.lower().endswith(EXTENSIONS) else others
            listed.append(os.path.join(parent, name))
    if others:
        log.warning(
            "%s: %d files are not listed, their names end in none of %s: %s",
            folder,
            len(others),
            " ".join(EXTENSIONS),
            ", ".join(map(ascii, others[:5])) + (" ..." if len(others) > 5 else ""),
        )
    return files


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


def holdout_split(index: ImageFolder, per_class: int, seed: int) -> tuple[ImageFolder, ImageFolder]:
    """Holds out `per_class` images of every class for validation; no image is in both.

    This is what the study's improvement 5 meant (80 per class); its own folders held 80 of the
    400 validation images in the training set too.

    Raises:
      UserError: a class has no more than `per_class` images.
    """
    for name, count in zip(index.class_names, index.counts(), strict=True):
        if count <= per_class:
            raise UserError(
                f"class {name} has {count} images, holdout_per_class={per_class} leaves none "
                "to train on; lower it."
            )
    rng = np.random.RandomState(seed)
    by_class = [rng.permutation(np.flatnonzero(index.labels == k)) for k in np.unique(index.labels)]
    train = np.sort(np.concatenate([members[per_class:] for members in by_class]))
    validation = np.sort(np.concatenate([members[:per_class] for members in by_class]))
    return index.take(train), index.take(validation)


def add_leaked(train: ImageFolder, validation: ImageFolder, count: int) -> ImageFolder:
    """`train` with the first `count` images of `validation` added; these are whole classes.

    The study's improvement 5 trained on 80 of its validation images, one class of five.

    Raises:
      UserError: there are fewer validation images.
    """
    if count > len(validation):
        raise UserError(f"leaked={count}, but there are only {len(validation)} validation images.")
    leaked = validation.take(range(count))
    return ImageFolder(
        (*train.paths, *leaked.paths),
        np.concatenate([train.labels, leaked.labels]),
        train.class_names,
    )


def split(index: ImageFolder, config: ConfigDict) -> tuple[ImageFolder, ImageFolder]:
    """Training and validation files as `config.data` says; with 'none' both are the whole."""
    if config.split == "keras":
        return keras_split(index, config.validation_fraction, config.split_seed)
    if config.split == "holdout":
        train, validation = holdout_split(index, config.holdout_per_class, config.split_seed)
        return add_leaked(train, validation, config.leaked), validation
    return index, index
