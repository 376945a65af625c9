"""Speed of training: this package beside plain Flax, Keras and PyTorch, each in its own process.

python benchmarks/benchmark.py --models=base_cnn,alexnet --peers=plain,keras,torch

One process works at a time; they take turns, so that what else the machine does meets all alike.
'plain' is the same step with Flax's own layers and XLA's default options; 'keras' is the study's
model in Keras (TensorFlow) and 'torch' in PyTorch, channels last and, on GPUs, compiled. Adam,
batch 32, float32, the images that a run would find. The peers 'bfloat16', this package in that
precision, and 'torch_bfloat16' are for GPUs. Epochs are of training, without the validation, from
images that are decoded already. A table of medians goes to the terminal, everything to --out as
JSON. The second start finds the programs that the first compiled. With 'keras' among the peers,
decoding the whole folder is timed beside Keras' loader.
"""

import importlib.util
import multiprocessing
import os
import platform
import resource
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import alone
import clone  # noqa: F401
import implementations
import jax
import jax.numpy as jnp
from absl import flags

from flowers_jax import models
from flowers_jax.data import decode, folder, sources, splits
from flowers_jax.ops import backend
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files
from flowers_jax.runs.run_folder import versions
from flowers_jax.study.runner import Run

PEERS = ("plain", "keras", "torch", "bfloat16", "torch_bfloat16")
STEPS_PER_TURN = 3
WARM_UP = 5  # steps; the memory of a process grows during the first few
HEADER = ["model", "by", "ms per step", "ours / it", "images/s of an epoch", "epoch / steps"]
HEADER += ["s to the first step", "at the second start", "peak MB", "GFLOP/s"]
HEADER += ["of a matrix product's"]

# What is measured of each implementation of a model, by its name.
Measured = dict[str, dict[str, Any]]

_MODELS = flags.DEFINE_list("models", ["base_cnn", "alexnet"], "Models to time.")
_PEERS = flags.DEFINE_list("peers", ["plain", "keras", "torch"], f"Of {', '.join(PEERS)}.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed steps of each, after warming up.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Timed epochs of each; may be 0.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder; as a run finds it if unset.")
_OUT = flags.DEFINE_string("out", "runs/benchmark.json", "File for the measurements.")


def main(arguments: Sequence[str]) -> None:
    """Times every model and prints the table."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    command.require_choices(_MODELS, models.MODELS)
    peers = command.require_choices(_PEERS, PEERS) if _PEERS.value else []
    if importlib.util.find_spec("torch") is None and any("torch" in name for name in peers):
        print("PyTorch is not installed and is left out.", file=sys.stderr)
        peers = [name for name in peers if "torch" not in name]
    out = Path(_OUT.value)
    files.prepare_file(out)
    config = Run("common", {"data.dir": _DATA_DIR.value}, out.parent).load()
    source = sources.resolve(config.data, out.parent)
    splits.read(source.root, config.data)  # what is wrong with the images is said once
    device, ceiling = alone.call(measure_ceiling)
    measured = {}
    for model in _MODELS.value:
        # The first start compiles, the second finds what the first has kept.
        with tempfile.TemporaryDirectory() as cache:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
            names = ["ours", *peers]
            measured[model] = measure(model, names, source.root, _STEPS.value, _EPOCHS.value)
    rows = (row for model, found in measured.items() for row in table_rows(model, found, ceiling))
    print(files.markdown(HEADER, rows), end="")
    decoding = alone.call(measure_decoding, source.root) if "keras" in peers else {}
    for name, speeds in decoding.items():
        print(f"decoding, {name}: {statistics.median(speeds):.0f} images/s")
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "benchmarks/benchmark.py", *sys.argv[1:]]),
        "machine": platform.processor() or platform.machine(),
        "device": device,
        "cores": os.cpu_count(),
        "versions": versions(),
        "data_source": source.name,
        "batch": config.batch_size,
        "matrix_product_gflops": ceiling,
        "decoded_images_per_second": decoding,
        "models": measured,
    }
    files.write_json(out, record)


def table_rows(model: str, measured: Measured, ceiling: float) -> Iterator[list[str]]:
    """A row under `HEADER` for each implementation."""
    ours = measured["ours"]["median_ms"]
    for name, found in measured.items():
        speed, again = found.get("images_per_second"), found.get("second_first_step_s")
        yield [
            model,
            name,
            f"{found['median_ms']:.1f}",
            f"{ours / found['median_ms']:.2f}",
            f"{speed:.0f}" if speed else "",
            f"{found['epoch_overhead']:.2f}" if speed else "",
            f"{found['first_step_s']:.1f}",
            f"{again:.1f}" if again else "",
            f"{found['peak_memory_mb']:.0f}",
            f"{found['gflops']:.0f}",
            f"{100 * found['gflops'] / ceiling:.0f} %",
        ]


def measure(
    model: str, names: Sequence[str], root: Path, num_steps: int, num_epochs: int
) -> Measured:
    """Times of the implementations, which take turns of a few steps, then of an epoch."""
    pipes: dict[str, Connection] = {}
    found: Measured = {}
    for name in names:
        pipes[name] = _start(name, model, root)
        found[name] = _receive(pipes[name], name)
    times: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in names} for what in ("step", "epoch")
    }
    turns = ["step"] * -(-num_steps // STEPS_PER_TURN) + ["epoch"] * num_epochs
    for what in turns:
        for name, pipe in pipes.items():
            pipe.send(what)
            times[what][name] += _receive(pipe, name)
    for name, pipe in pipes.items():
        pipe.send("end")
        found[name] |= _receive(pipe, name)
    again = _start("ours", model, root)
    found["ours"]["second_first_step_s"] = _receive(again, "ours")["first_step_s"]
    again.send("end")
    _receive(again, "ours")
    config = implementations.load_config("ours", model)
    flops = alone.call(implementations.step_flops, config, len(folder.scan(root).class_names))
    for name, row in found.items():
        step = statistics.median(times["step"][name])
        row["median_ms"] = 1e3 * step
        row["gflops"] = flops / step / 1e9
        row["seconds"] = times["step"][name]
        if num_epochs:
            epoch = statistics.median(times["epoch"][name])
            row["images_per_second"] = row["num_images"] / epoch
            row["epoch_overhead"] = epoch / (-(-row["num_images"] // config.batch_size) * step)
            row["epoch_seconds"] = times["epoch"][name]
    return found


def _start(name: str, model: str, root: Path) -> Connection:
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    spawn.Process(target=work, args=(theirs, name, model, root), daemon=True).start()
    theirs.close()
    return ours


def _receive(pipe: Connection, name: str) -> Any:  # noqa: ANN401
    try:
        return pipe.recv()
    except EOFError as error:
        raise UserError(f"the process of {name} has ended; its message is above.") from error


def work(pipe: Connection, name: str, model: str, root: Path) -> None:
    """An implementation's process: steps and epochs when told, and at the end its memory."""
    # The implementations share a GPU, whose memory each JAX would take for itself.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if name in ("ours", "bfloat16"):
        backend.reuse_memory()  # before anything is allocated, as main.py does
    config = implementations.load_config(name, model)
    images = splits.read(root, config.data).train
    implementation = implementations.create(name, config, images)
    implementation.step()
    first = {"first_step_s": time.perf_counter() - implementation.loaded, "num_images": len(images)}
    for _ in range(WARM_UP):
        implementation.step()
    implementation.epoch(2)
    # Not before: whoever hears of it lets the next one start.
    pipe.send(first)
    turns = {
        "step": [implementation.step] * STEPS_PER_TURN,
        "epoch": [lambda: implementation.epoch(None)],
    }
    while (what := pipe.recv()) != "end":
        times = []
        for run in turns[what]:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        pipe.send(times)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"peak_memory_mb": kilobytes / (1e6 if sys.platform == "darwin" else 1e3)})


def measure_ceiling() -> tuple[str, float]:
    """The device, and its GFLOP/s for a product of two 4096 x 4096 float32 matrices, best of 5."""
    backend.require_devices()
    size, times = 4096, []
    a = jnp.ones((size, size))
    jnp.matmul(a, a).block_until_ready()
    for _ in range(5):
        start = time.perf_counter()
        jnp.matmul(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    device = jax.devices()[0]
    is_cpu = device.platform == "cpu"
    name = f"CPU ({platform.processor() or platform.machine()})" if is_cpu else device.device_kind
    return name, 2 * size**3 / min(times) / 1e9


def measure_decoding(root: Path) -> dict[str, list[float]]:
    """Images per second, from a folder to pixels at 150 px: ours, and a pass of Keras' loader.

    Ours keeps them all, Keras' hands out batches. They take turns, after one of each.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    backend.reuse_memory()

    def ours() -> int:
        images, _ = decode.decode(folder.scan(root).paths, 150, "bilinear")
        return len(images)

    def theirs() -> int:
        dataset = keras.utils.image_dataset_from_directory(
            root, image_size=(150, 150), batch_size=32, shuffle=False, verbose=False
        )
        return sum(len(images) for images, _ in dataset)

    speeds: dict[str, list[float]] = {"ours": [], "keras": []}
    for _ in range(21):
        for name, decode_all in (("ours", ours), ("keras", theirs)):
            start = time.perf_counter()
            speeds[name].append(decode_all() / (time.perf_counter() - start))
    return {name: values[1:] for name, values in speeds.items()}


if __name__ == "__main__":
    command.run(main)
