"""Where a data set comes from: a folder, Kaggle, tensorflow-datasets, or drawn on the spot."""

import dataclasses
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from flowers_jax.data import drawn
from flowers_jax.process.errors import UserError

SOURCES = ("auto", "folder", "kaggle", "tfds", "drawn")
KAGGLE_HANDLE = "alxmamaev/flowers-recognition"
# Where Kaggle mounts the data set in a notebook, old and new style.
KAGGLE_INPUTS = (
    Path("/kaggle/input/flowers-recognition"),
    Path("/kaggle/input/datasets") / KAGGLE_HANDLE,
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A resolved source: its `name` for logs and titles and the `root` of its image folder."""

    name: str
    root: Path


def resolve(config: ConfigDict, workdir: Path) -> DataSource:
    """Finds, downloads or draws the image folder that `config.data` asks for.

    'auto' takes the first that exists: `config.dir`, the environment variable FLOWERS_DIR, Kaggle's
    input folder, a download with kagglehub. Drawn flowers are never chosen by 'auto'.

    Args:
      config: `source` and `dir`.
      workdir: drawn flowers go below it when `config.dir` is not set.

    Raises:
      UserError: the source is unavailable.
    """
    if config.source == "drawn":
        root = Path(config.dir).expanduser() if config.dir else workdir / "drawn_flowers"
        drawn.write(root)
        return DataSource("drawn flowers (no photographs)", root)
    if config.source == "tfds":
        return DataSource("tensorflow-datasets tf_flowers", _tfds(config.dir))
    if config.source == "kaggle":
        return _kaggle()
    named = named_folder(config)
    if named:
        if not named.is_dir():
            origin = "config.data.dir" if config.dir else "the environment variable FLOWERS_DIR"
            raise UserError(f"{origin} names {named}, which is not a folder.")
        return DataSource(f"folder {named.resolve().name}", named)
    if config.source == "folder":
        raise UserError("config.data.source='folder' needs --config.data.dir=DIR or FLOWERS_DIR.")
    return _kaggle()


def named_folder(config: ConfigDict) -> Path | None:
    """The folder of photographs that the config or the environment names, if any."""
    named = config.dir or os.environ.get("FLOWERS_DIR")
    return Path(named).expanduser() if named and config.source in ("auto", "folder") else None


def _kaggle() -> DataSource:
    """The Kaggle data set, mounted or downloaded."""
    for root in KAGGLE_INPUTS:
        if root.is_dir():
            return DataSource(f"Kaggle {KAGGLE_HANDLE}", root)
    try:
        import kagglehub

        log.info("downloading %s from Kaggle", KAGGLE_HANDLE)
        root = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub passes on whatever the network raises
        raise UserError(
            "no images found: give --config.data.dir=DIR or set FLOWERS_DIR to a folder with one "
            f"sub-folder per class; on Kaggle add the data set {KAGGLE_HANDLE} as input; elsewhere "
            "let kagglehub download it, which failed here "
            f"({_in_short(error)}); "
            "or take --config.data.source=tfds or --config.data.source=drawn."
        ) from error
    return DataSource(f"Kaggle {KAGGLE_HANDLE}", root)


def _in_short(error: Exception) -> str:
    first_line, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first_line[:120]}"


def _tfds(directory: str | None) -> Path:
    """tf_flowers as an image folder below `directory` (default: the user's cache)."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"config.data.source='tfds' needs {error.name}; pip install 'flowers-jax[tf,tfds]'."
        ) from error
    try:
        root = Path(directory or "~/.cache/flowers_jax").expanduser() / "tf_flowers"
    except RuntimeError as error:  # there is no home
        raise UserError("config.data.source='tfds' needs --config.data.dir=DIR.") from error
    if root.is_dir():
        return root
    try:
        builder = tfds.builder("tf_flowers")
        builder.download_and_prepare()
        examples = builder.as_dataset("train", decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # tfds passes on whatever the network raises
        raise UserError(
            f"tensorflow-datasets could not provide tf_flowers ({_in_short(error)})."
        ) from error
    export(
        ((int(e["label"]), bytes(e["image"])) for e in examples.as_numpy_iterator()),
        builder.info.features["label"].names,
        root,
    )
    return root


def export(examples: Iterable[tuple[int, bytes]], names: list[str], root: Path) -> None:
    """Writes (label, JPEG bytes) pairs as an image folder; `root` appears when it is complete."""
    partial = root.with_name(root.name + ".partial")
    for name in names:
        (partial / name).mkdir(parents=True, exist_ok=True)
    for i, (label, jpeg) in enumerate(examples):
        (partial / names[label] / f"{i:05d}.jpg").write_bytes(jpeg)
    partial.rename(root)
