"""A run from Python: trained by `fit` or read back by `load`, ready to classify images."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from PIL import Image

from flowers_jax import gradcam, reference, weights
from flowers_jax.data import augment, decode
from flowers_jax.data import folder as image_folder
from flowers_jax.data.batches import Batches
from flowers_jax.data.folder import ImageFolder
from flowers_jax.models import Variables
from flowers_jax.ops import backend
from flowers_jax.process import messages
from flowers_jax.process.errors import UserError
from flowers_jax.runs import evaluate, history, results, run_folder
from flowers_jax.runs.evaluate import Evaluation
from flowers_jax.runs.history import History
from flowers_jax.runs.run_folder import Summary
from flowers_jax.train import train_and_evaluate
from flowers_jax.trainer import Trainer, create_mesh, create_task

Pixels = UInt8[np.ndarray, "n height width 3"]
Picture = str | Path | Image.Image
Images = Picture | Sequence[Picture] | Pixels
# Files that are decoded before they are classified: as many as memory always has room for.
CHUNK = 1024
# So many are decoded before TensorFlow would be imported.
FEW = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder, read back.

    Attributes:
      workdir: the run folder.
      config: settings of the run.
      class_names: in the order of the probabilities.
      history: a row per epoch.
      summary: what `summary.json` holds; None if the run is not finished.
      variables: of the epoch that the run reports.
      trainer: the steps, compiled.
    """

    workdir: Path
    config: ConfigDict
    class_names: tuple[str, ...]
    history: History
    summary: Summary | None
    variables: Variables
    trainer: Trainer

    def __repr__(self) -> str:
        return f"Run({str(self.workdir)!r}: {self.config.model}, {len(self.history)} epochs)"

    @property
    def temperature(self) -> float | None:
        """That calibrates the probabilities; None for a run that is unfinished or older."""
        return (self.summary or {}).get("temperature")

    def predict(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """Class probabilities of images, which are decoded, resized and scaled as in training.

        Args:
          images: paths of image files, images of Pillow, one of either, or pixels 0..255 as a
            uint8 array `[n, height, width, 3]`.

        Raises:
          UserError: naming every file that cannot be decoded; or the images are none of these.
        """
        if isinstance(images, np.ndarray) and images.dtype.kind not in "OU":  # as arrays of paths
            return self._of_pixels(images)
        several = _several(images)
        files = [image for image in several if isinstance(image, str | Path)]
        pictures = [image for image in several if isinstance(image, Image.Image)]
        if len(files) == len(several):
            probabilities, bad = self.predict_files(files)
            if bad:
                raise UserError(f"{decode.describe_bad(bad, len(files))}. Leave them out.")
            return probabilities
        if len(pictures) == len(several):
            return self._of_pixels([self._rgb(picture) for picture in pictures])
        kinds = ", ".join(sorted({type(image).__name__ for image in several}))
        raise UserError(
            f"predict takes paths, images of Pillow or one uint8 array, not a list of {kinds}."
        )

    def predict_files(
        self, paths: str | Path | Sequence[str | Path]
    ) -> tuple[Float[np.ndarray, "n classes"], dict[str, str]]:
        """Class probabilities of image files, or of one.

        Returns:
          The probabilities, NaN for files that cannot be decoded; and why these cannot, by path.
        """
        names = _names(paths)
        probabilities = np.full((len(names), len(self.class_names)), np.nan, np.float32)
        bad: dict[str, str] = {}
        nowhere = ImageFolder(names, np.zeros(len(names), np.int32), self.class_names)
        for rows, batches, unreadable in self._decoded(nowhere):
            bad |= unreadable
            if len(rows):
                probabilities[rows] = self.trainer.predict(self.variables, batches.epoch())
        return probabilities, bad

    def evaluate(self, root: str | Path) -> Evaluation:
        """Metrics, confusion matrix and report on a labelled image folder.

        Its classes are matched by name; it may lack some of the run's.

        Raises:
          UserError: it has a class that the run does not know, or an image cannot be decoded.
        """
        files = image_folder.scan(Path(root).expanduser(), self.class_names)
        bad: dict[str, str] = {}
        probabilities, metrics = [], self.trainer.zero_metrics()
        for _, batches, unreadable in self._decoded(files):
            bad |= unreadable
            if bad:
                continue
            probabilities.append(self.trainer.predict(self.variables, batches.epoch()))
            for batch in batches.epoch():
                metrics = self.trainer.eval_step(self.variables, metrics, batch)
        if bad:
            raise UserError(f"{decode.describe_bad(bad, len(files))}. Repair or remove them.")
        return evaluate.evaluate(files, np.concatenate(probabilities), metrics.averages())

    def explain(
        self,
        paths: str | Path | Sequence[str | Path],
        class_name: str | None = None,
        layer: str = gradcam.FEATURES,
    ) -> list[gradcam.Explanation]:
        """Grad-CAM: where in image files the network sees a class.

        Args:
          paths: the files, or one.
          class_name: the class; None for the predicted one of each image.
          layer: whose output is looked at; a name of `gradcam.layers`.

        Raises:
          UserError: there is no such class or layer, or an image cannot be decoded.
        """
        names = _names(paths)
        if class_name not in (None, *self.class_names):
            known = ", ".join(self.class_names)
            raise UserError(f"{self.workdir} has no class {class_name!r}; choose one of {known}.")
        gradcam.require_layer(self.trainer.task.model, self.config.image_size, layer)
        if not names:
            return []
        images, unreadable = self._decode(names)
        if unreadable:
            bad = {names[i]: why for i, why in unreadable.items()}
            raise UserError(f"{decode.describe_bad(bad, len(names))}. Leave them out.")
        classes = self.predict(images).argmax(axis=1).astype(np.int32)
        if class_name is not None:
            classes[:] = self.class_names.index(class_name)
        files = ImageFolder(names, classes, self.class_names)
        batches = self._batches(files, images, np.arange(len(names)), len(names))
        heats = self.trainer.grad_cam(self.variables, batches.epoch(), layer)
        return [
            gradcam.Explanation(path, self.class_names[k], heat, self._picture(path, pixels))
            for path, k, heat, pixels in zip(names, classes, heats, images, strict=True)
        ]

    def embed(self, files: ImageFolder) -> Float[np.ndarray, "n channels"]:
        """What the network makes of each image file, as a vector of length 1: its last maps.

        Of a file that cannot be decoded it is zero.

        Raises:
          UserError: the network does not say which its last maps are.
        """
        gradcam.require_layer(self.trainer.task.model, self.config.image_size, gradcam.FEATURES)
        rows, vectors = [], []
        for places, batches, _ in self._decoded(files):
            if len(places):
                rows.append(places)
                vectors.append(self.trainer.embed(self.variables, batches.epoch()))
        result = np.zeros((len(files), vectors[0].shape[1]) if vectors else (0, 0), np.float32)
        for places, found in zip(rows, vectors, strict=True):
            result[places] = found
        return result

    def plot_curves(self) -> Figure:
        """Loss and accuracy over the epochs, over those that the study logged."""
        if not self.history:
            raise UserError(f"{self.workdir} has no history.csv any more.")
        original = reference.history(self.config.study_run)
        return results.curves(self._finished(), self.history, original)

    def plot_confusion_matrix(self) -> Figure:
        """The confusion matrix of the validation images."""
        from flowers_jax.runs import plots

        summary = self._finished()
        try:
            matrix = evaluate.read_confusion_matrix(self.workdir)
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error
        title = results.title_of_epoch(summary)
        return plots.confusion_matrix(matrix, self.class_names, title)

    def _finished(self) -> Summary:
        if self.summary is None:
            raise UserError(f"{self.workdir} is not finished; its pictures are drawn at the end.")
        return self.summary

    def _rgb(self, image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
        try:
            return decode.rgb(image, self.config.data.exif_orientation)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"the image {image} cannot be used: {error}.") from error

    def _of_pixels(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        if isinstance(images, np.ndarray) and (
            images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3
        ):
            raise UserError(
                "predict takes an array of pixels 0..255, uint8 [n, height, width, 3]; this one "
                f"is {images.dtype} {list(images.shape)}."
            )
        if any(0 in image.shape for image in images):
            raise UserError("predict takes images with pixels; one of these has none.")
        if not len(images):
            return np.zeros((0, len(self.class_names)), np.float32)
        resized = decode.resize_pixels(images, self.config.image_size, self.config.data.resize)
        names = ("",) * len(images)
        nowhere = ImageFolder(names, np.zeros(len(images), np.int32), self.class_names)
        batches = self._batches(nowhere, resized, np.arange(len(images)), len(images))
        return self.trainer.predict(self.variables, batches.epoch())

    def _decode(self, paths: Sequence[str]) -> tuple[Pixels, dict[int, str]]:
        decoder = decode.decode_few if len(paths) <= FEW else decode.decode
        return decoder(
            paths,
            self.config.image_size,
            self.config.data.resize,
            exif_orientation=self.config.data.exif_orientation,
        )

    def _picture(self, path: str, pixels: UInt8[np.ndarray, "size size 3"]) -> Image.Image:
        """The image in its own size; what the network sees if Pillow cannot read all of it."""
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            pixels = decode.read_rgb(path, self.config.data.exif_orientation)
        return Image.fromarray(pixels)

    def _decoded(self, files: ImageFolder) -> Iterator[tuple[np.ndarray, Batches, dict[str, str]]]:
        """`files` in chunks: the places of those that can be decoded, these, and why others not."""
        for first in range(0, len(files), CHUNK):
            chunk = files.take(range(first, min(first + CHUNK, len(files))))
            images, unreadable = self._decode(chunk.paths)
            good = np.setdiff1d(np.arange(len(chunk)), list(unreadable))
            batches = self._batches(chunk.take(good), images, good, len(files))
            yield first + good, batches, {chunk.paths[i]: why for i, why in unreadable.items()}

    def _batches(
        self, files: ImageFolder, images: Pixels, rows: np.ndarray, num_images: int
    ) -> Batches:
        # One size for all chunks: one program.
        batch_size = min(self.config.batch_size, num_images)
        return Batches(files, images, rows, batch_size, self.trainer.mesh)


def _several(images: Any) -> list[Any]:  # noqa: ANN401
    """The images, also if it is one, or none of ours."""
    is_one = isinstance(images, Picture) or not isinstance(images, Iterable)
    return [images] if is_one else list(images)


def _names(paths: Any) -> tuple[str, ...]:  # noqa: ANN401
    several = _several(paths)
    for path in several:
        if not isinstance(path, str | Path):
            raise UserError(f"this takes paths of image files, not {type(path).__name__}.")
    return tuple(map(str, several))


def fit(config: ConfigDict, workdir: str | Path) -> Run:
    """Trains as `config` says, or goes on with the run in the folder `workdir`, and reads it back.

    Shows what the command shows, unless the program has handlers for these messages itself.

    Raises:
      UserError, Interrupted, ResultsIncomplete: as `train.train_and_evaluate`.
    """
    workdir = Path(workdir).expanduser()
    backend.reuse_memory()
    backend.use_compilation_cache()
    with messages.shown():
        train_and_evaluate(config, workdir)
    return load(workdir)


def load(workdir: str | Path, tta: bool = False) -> Run:
    """Reads a run folder.

    Args:
      workdir: the run folder.
      tta: average the probabilities over the flips that the training used, as `config.eval_tta`.

    Raises:
      UserError: it holds no weights, or there are no such flips.
    """
    backend.use_compilation_cache()
    workdir = Path(workdir).expanduser()
    mesh = create_mesh()
    config, class_names, variables = weights.read(workdir, mesh)
    if tta and augment.views(config.data.augment) == ((),):
        raise UserError(f"{workdir} was trained without flips, so there are none to average over.")
    config.eval_tta = config.eval_tta or tta
    trainer = Trainer(create_task(config, len(class_names)), config.image_size, mesh)
    return Run(
        workdir,
        config,
        class_names,
        history.read(workdir),
        run_folder.read_summary(workdir),
        variables,
        trainer,
    )
