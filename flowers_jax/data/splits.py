"""Training, validation and test files, as `config.data` says."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from flowers_jax.data import duplicates, folder
from flowers_jax.data.folder import ImageFolder
from flowers_jax.process.errors import UserError

SPLITS = ("keras", "holdout", "stratified", "none")

log = logging.getLogger(__name__)


class Files(NamedTuple):
    """The files of each split; with a split of 'none' the first two are one object."""

    train: ImageFolder
    validation: ImageFolder
    test: ImageFolder | None = None


def read(root: str | os.PathLike, config: ConfigDict) -> Files:
    """The files of an image folder: split as it is split already, otherwise as `config` says.

    Raises:
      UserError: the folder, or its classes, cannot be split like this.
    """
    parts = folder.parts(root)
    return read_parts(parts, config) if parts else split(folder.scan(root), config)


def read_parts(parts: Mapping[str, Path], config: ConfigDict) -> Files:
    """The files of a folder that is split already, see `folder.parts`.

    Without `validation` that split is made of the training images, as `config` says.

    Raises:
      UserError: `config` asks for another split, or a class has no training images.
    """
    root = parts["train"].parent
    if "validation" in parts and config.split != "keras":
        raise UserError(
            f"{root} has validation images already, so data.split={config.split!r} cannot choose "
            "them; leave it unset, or merge the folders."
        )
    if "test" in parts and config.test_fraction:
        raise UserError(
            f"{root} has test images already, so data.test_fraction={config.test_fraction} cannot "
            "choose them; leave it unset."
        )
    if config.group_duplicates:
        raise UserError(
            f"{root} is split already, so data.group_duplicates cannot keep duplicates together; "
            "leave it unset, or merge the folders."
        )
    train = folder.scan(parts["train"])
    found = {
        name: folder.scan(path, train.class_names)
        for name, path in parts.items()
        if name != "train"
    }
    if "validation" in found:
        return Files(train, **found)
    log.info("%s has no validation images; data.split=%r chooses them", root, config.split)
    return split(train, config)._replace(**found)


def split(index: ImageFolder, config: ConfigDict) -> Files:
    """The splits of a folder as `config` says; with 'none' both are the whole.

    Raises:
      UserError: a split, or for 'stratified' and 'holdout' a class in it, would be empty.
    """
    if config.split == "keras":
        files = Files(*folder.keras_split(index, config.validation_fraction, config.split_seed))
        for name, images in (("training", files.train), ("validation", files.validation)):
            missing = [index.class_names[k] for k in np.flatnonzero(images.counts() == 0)]
            if missing:
                more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
                log.warning("classes without %s images: %s", name, ", ".join(missing[:5]) + more)
        return files
    if config.split == "holdout":
        train, validation = holdout_split(index, config.holdout_per_class, config.split_seed)
        return Files(add_leaked(train, validation, config.leaked), validation)
    if config.split == "stratified":
        pairs = []
        if config.group_duplicates:
            log.info("looking for duplicates among %d images", len(index))
            pairs = duplicates.find(duplicates.inspect(index.paths))
            log.info("%d pairs of duplicates are kept together", len(pairs))
        return stratified_split(index, duplicates.groups(pairs, len(index)), config)
    return Files(index, index)


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


def stratified_split(
    index: ImageFolder, groups: Int[np.ndarray, " n"], config: ConfigDict
) -> Files:
    """Splits every class alike: test images first, then validation images or folds.

    With `num_folds` all images that do not test are dealt to the folds, and those of `fold`
    validate: every one does so in exactly one fold.

    Args:
      index: the images.
      groups: of each image, from 0; a group is never divided, and counts to the class of its first
        image.
      config: `test_fraction`, `validation_fraction`, `num_folds`, `fold` and `split_seed`.

    Raises:
      UserError: a split would be without images of a class.
    """
    rng = np.random.default_rng(config.split_seed)
    _, firsts, sizes = np.unique(groups, return_index=True, return_counts=True)
    side = np.zeros(len(sizes), int)  # of each group: a place in `Files`
    dealt = 0
    for k, name in enumerate(index.class_names):
        order = rng.permutation(np.flatnonzero(index.labels[firsts] == k))
        num_images = sizes[order].sum()
        num_test = _reaching(config.test_fraction * num_images, sizes[order])
        side[order[:num_test]] = 2
        rest = order[num_test:]
        if config.num_folds is None:
            side[rest[: _reaching(config.validation_fraction * num_images, sizes[rest])]] = 1
        elif len(rest) < config.num_folds:
            raise UserError(
                f"class {name} has {len(rest)} images for {config.num_folds} folds (duplicates "
                "count once); add images, or choose fewer folds."
            )
        else:
            side[rest[(dealt + np.arange(len(rest))) % config.num_folds == config.fold]] = 1
            dealt += len(rest)
    files = [index.take(np.flatnonzero(side[groups] == s)) for s in range(3)]
    if not config.test_fraction:
        files.pop()
    for kind, images in zip(("training", "validation", "test"), files, strict=False):
        empty = np.flatnonzero(images.counts() == 0)
        if len(empty):
            raise UserError(
                f"data.split='stratified' leaves no {kind} images of class "
                f"{index.class_names[empty[0]]}, which has {index.counts()[empty[0]]}; add images, "
                "or choose smaller fractions."
            )
    return Files(*files)


def _reaching(wanted: float, sizes: Int[np.ndarray, " n"]) -> int:
    """How many of the groups, from the first, hold that many images, rounded; 1 or more if any."""
    before = np.cumsum(sizes) - sizes
    return int(np.count_nonzero(before < max(1, round(wanted)))) if wanted else 0


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
