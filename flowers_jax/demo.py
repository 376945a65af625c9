"""A page to try a run on.

`python -m flowers_jax.demo --workdir=RUN`; in a notebook `demo.launch(flowers_jax.load(RUN))`.
"""

import atexit
import functools
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from PIL import Image

from flowers_jax import gradcam, run
from flowers_jax.calibration import calibrate
from flowers_jax.data import decode, folder, sources
from flowers_jax.data.folder import ImageFolder
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.run import Run
from flowers_jax.runs import files

if TYPE_CHECKING:
    import gradio

NUM_NEAREST = 6
SECONDS_KEPT = 60  # an upload is on disk for as long as the page may show it
MAX_UPLOAD = "20mb"
THRESHOLD = 0.5

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Serves the page until it is interrupted."""
    given = flags.FLAGS
    if given.workdir is None or arguments[1:]:
        raise UserError("give a run: --workdir=runs/quickstart.")
    trained = run.load(given.workdir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # uploads are deleted
    try:
        launch(trained, given.threshold, server_name=given.host, server_port=given.port)
    except OSError as error:
        raise UserError(
            f"{given.host}:{given.port} cannot be listened on; choose another --host or --port."
        ) from error


def launch(trained: Run, threshold: float = THRESHOLD, **options: Any) -> Any:  # noqa: ANN401
    """Serves the page of a run; in a notebook it is shown there. Takes the options of Gradio's."""
    blocks = page(trained, threshold)
    import gradio

    # Gradio's own fonts come from the network.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return blocks.launch(
        theme=theme, max_file_size=MAX_UPLOAD, footer_links=[], ssr_mode=False, **options
    )


def page(trained: Run, threshold: float = THRESHOLD) -> "gradio.Blocks":
    """The page of a run."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = _uploads()
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            "gradio is not installed; pip install 'flowers-jax[demo]' (from a clone: "
            "pip install '.[demo]')."
        ) from error

    gradcam.require_layer(trained.trainer.task.model, trained.config.image_size, gradcam.FEATURES)

    nearest = nearest_images(trained)

    def answer(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return "", None, None, None
        (probabilities,), bad = trained.predict_files([path])
        if bad:
            return literal(f"This file {bad[path]}."), None, None, None
        (explanation,) = trained.explain([path])
        chances = calibrate(probabilities, trained.temperature or 1.0).tolist()
        ranked = dict(zip(trained.class_names, chances, strict=True))
        name, best = max(ranked.items(), key=lambda item: item[1])
        sure = "<b>{}</b>" if best >= threshold else "<b>unsure</b>, perhaps {}"
        said = f"{sure.format(literal(name))} ({best:.1%})"
        return said, ranked, explanation.overlay(), nearest(path)

    with gradio.Blocks(
        title=f"{trained.workdir.name}: {trained.config.model}",
        analytics_enabled=False,
        delete_cache=(SECONDS_KEPT, SECONDS_KEPT),
    ) as blocks:
        note = "" if trained.temperature else ". The probabilities are not calibrated."
        names = ", ".join(map(literal, trained.class_names))
        gradio.Markdown(f"# {literal(trained.workdir.name)}\n{names}{note}", latex_delimiters=[])
        with gradio.Row():
            with gradio.Column():
                given = gradio.Image(label="Picture", sources=["upload", "webcam", "clipboard"])
                # The upload as it is: whether it is an image, the decoder says.
                given.preprocess = lambda payload: payload and payload.path
                sentence = gradio.Markdown(elem_id="answer", latex_delimiters=[])
                # The sentence is the heading: the surest class may be unsure.
                label = gradio.Label(label="Probabilities", num_top_classes=10, show_heading=False)
            with gradio.Column():
                # Not the button that publishes the picture.
                buttons = ["fullscreen", "download"]
                heat = gradio.Image(
                    label="Where the network sees the class", interactive=False, buttons=buttons
                )
                gallery = gradio.Gallery(
                    label="The most similar training images",
                    columns=3,
                    height="auto",
                    buttons=buttons,
                )
        given.change(answer, given, [sentence, label, heat, gallery], api_visibility="private")
    return blocks


@functools.cache
def _uploads() -> str:
    """The folder of the uploads to all pages of this process; it is deleted with its end."""
    path = tempfile.mkdtemp(prefix="flowers_jax_")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def literal(text: str) -> str:
    """`text` as Markdown that shows it as it is: a class may have any name."""
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in text)


def nearest_images(trained: Run) -> Callable[[str], list[tuple[Image.Image, str]]]:
    """A function that finds the training images most similar to an image file, to the network."""
    root = sources.named_folder(trained.config.data) or trained.workdir / "drawn_flowers"
    rows = files.read_csv(trained.workdir / "images.csv")
    trained_on = {row["name"] for row in rows if row["split"] == "train"}
    try:
        index = folder.scan(folder.parts(root).get("train", root), trained.class_names)
    except UserError:  # it is gone, or another one now
        index = ImageFolder((), np.zeros(0, np.int32), ())
    index = index.take([i for i, name in enumerate(index.names) if name in trained_on])
    if not index:
        log.info("the training images are not here: the page shows none")
        return lambda path: []
    log.info("reading %d training images", len(index))
    known = trained.embed(index)

    def nearest(path: str) -> list[tuple[Image.Image, str]]:
        (given,) = trained.embed(ImageFolder((path,), np.zeros(1, np.int32), ("",)))
        found = index.take(np.argsort(-(known @ given))[:NUM_NEAREST])
        return [
            (Image.fromarray(decode.read_rgb(name)), found.class_names[label])
            for name, label in zip(found.paths, found.labels, strict=True)
        ]

    return nearest


if __name__ == "__main__":  # a notebook imports the module, perhaps beside another command
    flags.DEFINE_string("workdir", None, "Run folder with the weights.")
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0 is every one.")
    flags.DEFINE_integer("port", 7860, "Port to listen on.")
    command.define_threshold(THRESHOLD)
    command.run(main)
