"""Speed of training: this package beside plain Flax, Keras and PyTorch, each in its own process.

python scripts/benchmark.py --models=base_cnn,alexnet --peers=plain,keras,torch

One process works at a time; they take turns, so that what else the machine does meets all alike.
'plain' is the same step with Flax' own layers and without the settings of `flowers_jax.cpu`;
'keras' is the study's model in Keras (TensorFlow) and 'torch' in PyTorch, channels last and, on
GPUs, compiled. Adam, batch 32, float32, the images that a run would find. On GPUs 'bfloat16', this
package in that precision, and 'torch_bfloat16' may be among the peers. Epochs are of training,
without the validation, from images that are decoded already. A table of medians goes to the
terminal, everything to --out as JSON. The second start finds the programs that the first compiled.
With 'keras' among the peers, decoding the whole folder is timed beside Keras' loader.
"""

import functools
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import runner
from absl import flags

from flowers_jax import command, cpu, results
from flowers_jax.data import folder, pipeline, sources
from flowers_jax.errors import UserError

SIZES = {"googlenet": 224}  # others 150, as in the study
PEERS = ("plain", "keras", "torch", "bfloat16", "torch_bfloat16")
STEPS_PER_TURN = 3
WARM_UP = 5  # steps; the memory of a process grows during the first few

_MODELS = flags.DEFINE_list("models", ["base_cnn", "alexnet"], "Models to time.")
_PEERS = flags.DEFINE_list("peers", ["plain", "keras", "torch"], f"Of {', '.join(PEERS)}.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed steps of each, after warming up.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 1, "Timed epochs of each; may be 0.", lower_bound=0)
_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder; as a run finds it if unset.")
_OUT = flags.DEFINE_string("out", "runs/benchmark.json", "File for the measurements.")


def main(arguments: Sequence[str]) -> None:
    """Times every model and prints the table."""
    from flowers_jax import models

    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    for flag, values, known in (
        ("models", _MODELS.value, models.MODELS),
        ("peers", _PEERS.value, PEERS),
    ):
        for value in values:
            if value not in known:
                raise UserError(f"--{flag}={value}: choose from {', '.join(known)}.")
    peers = _PEERS.value
    if importlib.util.find_spec("torch") is None and any("torch" in name for name in peers):
        print("PyTorch is not installed and is left out.", file=sys.stderr)
        peers = [name for name in peers if "torch" not in name]
    out = Path(_OUT.value)
    results.prepare(out.parent)
    config = runner.Run("common", {"data.dir": _DATA_DIR.value}, Path()).load()
    source = sources.resolve(config.data, out.parent)
    ceiling = _alone(measure_ceiling)
    measured = {}
    for model in _MODELS.value:
        # The first start compiles, the second finds what the first has kept.
        with tempfile.TemporaryDirectory() as cache:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
            measured[model] = measure(
                model, ["ours", *peers], source.root, _STEPS.value, _EPOCHS.value
            )
    rows = []
    for model, by_name in measured.items():
        ours = by_name["ours"]["median_ms"]
        for name, found in by_name.items():
            speed, again = found.get("images_per_second"), found.get("second_first_step_s")
            rows.append(
                [
                    model,
                    name,
                    f"{found['median_ms']:.0f}",
                    f"{ours / found['median_ms']:.2f}",
                    f"{speed:.0f}" if speed else "",
                    f"{found['epoch_overhead']:.2f}" if speed else "",
                    f"{found['first_step_s']:.1f}",
                    f"{again:.1f}" if again else "",
                    f"{found['peak_memory_mb']:.0f}",
                    f"{found['gflops']:.0f}",
                    f"{100 * found['gflops'] / ceiling:.0f} %",
                ]
            )
    header = ["model", "by", "ms per step", "ours / it", "images/s of an epoch", "epoch / steps"]
    header += [
        "s to the first step",
        "at the second start",
        "peak MB",
        "GFLOP/s",
        "of a matrix product's",
    ]
    print(runner.markdown(header, rows), end="")
    decoding = _alone(measure_decoding, source.root) if "keras" in peers else {}
    for name, speeds in decoding.items():
        print(f"decoding, {name}: {statistics.median(speeds):.0f} images/s")
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "versions": results.versions(),
        "data_source": source.name,
        "batch": contenders.BATCH,
        "matrix_product_gflops": ceiling,
        "decoded_images_per_second": decoding,
        "models": measured,
    }
    results.write_json(out, record)


def measure(
    model: str, names: Sequence[str], root: str, num_steps: int, num_epochs: int
) -> dict[str, dict[str, float]]:
    """Times of the contenders, which take turns of a few steps, then of an epoch."""
    pipes, found = {}, {}
    for name in names:
        pipes[name] = _start(name, model, root)
        found[name] = _receive(pipes[name], name)
    times = {what: {name: [] for name in names} for what in ("step", "epoch")}
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
    flops = found["ours"]["flops"]
    for name, row in found.items():
        row.pop("flops", None)
        step = statistics.median(times["step"][name])
        row["median_ms"] = 1e3 * step
        row["gflops"] = flops / step / 1e9
        row["seconds"] = times["step"][name]
        if num_epochs:
            epoch = statistics.median(times["epoch"][name])
            num_images = row["num_images"]
            row["images_per_second"] = num_images / epoch
            row["epoch_overhead"] = epoch / (-(-num_images // contenders.BATCH) * step)
            row["epoch_seconds"] = times["epoch"][name]
    return found


def _start(name: str, model: str, root: str) -> multiprocessing.connection.Connection:
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    spawn.Process(target=work, args=(theirs, name, model, root), daemon=True).start()
    theirs.close()
    return ours


def _receive(pipe: multiprocessing.connection.Connection, name: str) -> dict | list:
    try:
        return pipe.recv()
    except EOFError as error:
        raise UserError(f"the process of {name} has ended; its message is above.") from error


def work(pipe: multiprocessing.connection.Connection, name: str, model: str, root: str) -> None:
    """A contender's process: steps and epochs when told, and at the end its memory."""
    if name in ("ours", "bfloat16"):
        cpu.reuse_memory()  # before anything is allocated, as main.py does
    size = SIZES.get(model, 150)
    config = runner.Run("common", {}, Path()).load()
    files, _ = folder.split(folder.scan(root), config.data)
    images, bad = pipeline.decode(files.paths, size, config.data.resize)
    if bad:
        raise UserError(f"{len(bad)} images of {root} cannot be read.")
    split = pipeline.Split(files, images, np.arange(len(files)))
    start = time.perf_counter()
    if name == "keras":
        contender = contenders.keras_contender(model, split)
    elif name.startswith("torch"):
        contender = contenders.torch_contender(name, model, split)
    else:
        contender = contenders.flax_contender(name, model, split)
    contender.step()
    first = {"first_step_s": time.perf_counter() - start, "num_images": len(files)}
    for _ in range(WARM_UP):
        contender.step()
    contender.epoch(2)
    # Not before: whoever hears of it lets the next one start.
    pipe.send(first | ({"flops": contender.flops} if contender.flops else {}))
    whole_epoch = functools.partial(contender.epoch, -(-len(files) // contenders.BATCH))
    turns = {"step": [contender.step] * STEPS_PER_TURN, "epoch": [whole_epoch]}
    while (what := pipe.recv()) != "end":
        times = []
        for run in turns[what]:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        pipe.send(times)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"peak_memory_mb": kilobytes / (1e6 if sys.platform == "darwin" else 1e3)})


def measure_ceiling() -> float:
    """GFLOP/s of a product of two 4096 x 4096 matrices in float32, the best of five."""
    import jax
    import jax.numpy as jnp

    size = 4096
    a = jnp.ones((size, size))
    multiply = jax.jit(jnp.matmul)
    multiply(a, a).block_until_ready()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def measure_decoding(root: Path) -> dict[str, list[float]]:
    """Images per second, from a folder to pixels at 150 px: ours, and a pass of Keras' loader.

    Ours keeps them all, Keras' hands out batches. They take turns, after one of each.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    cpu.reuse_memory()

    def ours() -> int:
        images, _ = pipeline.decode(folder.scan(root).paths, 150, "bilinear")
        return len(images)

    def theirs() -> int:
        dataset = keras.utils.image_dataset_from_directory(
            root, image_size=(150, 150), batch_size=contenders.BATCH, shuffle=False, verbose=False
        )
        return sum(len(images) for images, _ in dataset)

    speeds = {"ours": [], "keras": []}
    for _ in range(21):
        for name, decode in (("ours", ours), ("keras", theirs)):
            start = time.perf_counter()
            speeds[name].append(decode() / (time.perf_counter() - start))
    return {name: values[1:] for name, values in speeds.items()}


def _alone(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401
    """What `function` returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


if __name__ == "__main__":
    command.run(main)
