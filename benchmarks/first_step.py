"""Where the time to the first training step goes, without a compilation cache.

python benchmarks/first_step.py --models=base_cnn,alexnet,googlenet

Each model has a process of its own. The table has seconds of tracing to a jaxpr, of lowering to
StableHLO and of XLA's compilation, and all until the program has run, for the first state and for
the training step; beside the latter are the median step and the process's peak memory. The images
are random, batch 32, float32, Adam.
"""

import collections
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import alone
import clone  # noqa: F401
import implementations
import jax
import numpy as np
from absl import flags

from flowers_jax import models
from flowers_jax.data.batches import Batches
from flowers_jax.data.folder import ImageFolder
from flowers_jax.ops import backend
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files
from flowers_jax.trainer import Trainer, create_task

CLASSES = ("a", "b", "c", "d", "e")
STAGES = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
HEADER = ["model", "program", "trace", "lower", "compile", "until done", "ms per step", "peak MB"]

_MODELS = flags.DEFINE_list("models", ["base_cnn", "alexnet"], "Models to time.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps after the first.", lower_bound=1)


def main(arguments: Sequence[str]) -> None:
    """Times every model and prints the table."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    rows = []
    for model in command.require_choices(_MODELS, models.MODELS):
        rows += alone.call(measure, model, _STEPS.value)
    print(files.markdown(HEADER, rows), end="")


def measure(model: str, num_steps: int) -> list[list[str]]:
    """A row under `HEADER` for the first state and one for the training step."""
    backend.require_devices()
    backend.reuse_memory()
    jax.config.update("jax_enable_compilation_cache", False)
    seconds: collections.defaultdict[str, float] = collections.defaultdict(float)

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        seconds[event.rsplit("/", 1)[-1]] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    config = implementations.load_config("ours", model)
    trainer = Trainer(create_task(config, len(CLASSES)), config.image_size)
    size, num_images = config.image_size, config.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, size, size, 3), np.uint8)
    labels = (np.arange(num_images) % len(CLASSES)).astype(np.int32)
    images = ImageFolder(("",) * num_images, labels, CLASSES)
    data = Batches(images, pixels, np.arange(num_images), num_images, trainer.mesh)
    batch, metrics, keys = next(data.epoch()), trainer.zero_metrics(), trainer.keys(0, 1)

    def timed(program: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        result = jax.block_until_ready(program())
        return result, time.perf_counter() - start

    rows = []
    state: Any = None
    programs: dict[str, Callable[[], Any]] = {
        "first state": lambda: trainer.create_state(0),
        "training step": lambda: trainer.train_step(state, metrics, batch, keys)[0],
    }
    for name, program in programs.items():
        seconds.clear()
        state, took = timed(program)
        rows.append([model, name, *(f"{seconds[stage]:.1f}" for stage in STAGES), f"{took:.1f}"])
    times = []
    for _ in range(num_steps):
        state, took = timed(programs["training step"])
        times.append(took)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_mb = peak / (1e6 if sys.platform == "darwin" else 1e3)
    rows[0] += ["", ""]
    rows[1] += [f"{1e3 * statistics.median(times):.0f}", f"{peak_mb:.0f}"]
    return rows


if __name__ == "__main__":
    command.run(main)
