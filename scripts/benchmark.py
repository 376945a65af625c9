"""Time of a training step: this package beside plain Flax and Keras, each in a process of its own.

python scripts/benchmark.py --models=base_cnn,alexnet --peers=plain,keras

One process works at a time; they take turns, so that what else the machine does meets all alike.
'plain' is the same step with Flax' own pooling and without the settings of `flowers_jax.cpu`,
'keras' the study's model on Keras (TensorFlow), with Adam. Batch 32, float32, drawn pixels. On GPUs
'bfloat16', this package in that precision, may be among the peers. A table of medians goes to the
terminal, everything to --out as JSON.
"""

import multiprocessing
import multiprocessing.connection
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import runner
from absl import flags

from flowers_jax import command, results
from flowers_jax.errors import UserError

SIZES = {"googlenet": 224}  # others 150, as in the study
PEERS = ("plain", "keras", "bfloat16")
BATCH = 32

_MODELS = flags.DEFINE_list("models", ["base_cnn", "alexnet"], "Models to time.")
_PEERS = flags.DEFINE_list("peers", ["plain", "keras"], f"Of {', '.join(PEERS)}.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed steps of each, after warming up.", lower_bound=1)
_OUT = flags.DEFINE_string("out", "runs/benchmark.json", "File for the measurements.")

Step = Callable[[], None]


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
    results.prepare(Path(_OUT.value).parent)
    measured = {
        model: measure(model, ["ours", *_PEERS.value], _STEPS.value) for model in _MODELS.value
    }
    rows = []
    for model, contenders in measured.items():
        ours = contenders["ours"]["median_ms"]
        for name, found in contenders.items():
            rows.append(
                [
                    model,
                    name,
                    f"{found['median_ms']:.0f}",
                    f"{ours / found['median_ms']:.2f}",
                    f"{found['first_step_s']:.1f}",
                    f"{found['peak_memory_mb']:.0f}",
                    f"{found['gflops']:.0f}" if "gflops" in found else "",
                ]
            )
    header = [
        "model",
        "by",
        "ms per step",
        "ours / it",
        "s to the first step",
        "peak MB",
        "GFLOP/s",
    ]
    print(runner.markdown(header, rows), end="")
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "versions": results.versions(),
        "batch": BATCH,
        "models": measured,
    }
    results.write_json(Path(_OUT.value), record)


def measure(model: str, contenders: Sequence[str], num_steps: int) -> dict[str, dict[str, float]]:
    """Times of the contenders, which take turns of three steps."""
    spawn = multiprocessing.get_context("spawn")
    pipes, found = {}, {}
    for name in contenders:
        ours, theirs = spawn.Pipe()
        spawn.Process(target=work, args=(theirs, name, model), daemon=True).start()
        theirs.close()
        found[name] = _receive(ours, name)
        pipes[name] = ours
    times = {name: [] for name in contenders}
    while len(times[contenders[-1]]) < num_steps:
        for name, pipe in pipes.items():
            pipe.send("steps")
            times[name] += _receive(pipe, name)
    for name, pipe in pipes.items():
        pipe.send("end")
        found[name] |= _receive(pipe, name)
        found[name]["median_ms"] = 1e3 * statistics.median(times[name])
        found[name]["seconds"] = times[name]
    flops = found["ours"].pop("flops")
    for name in contenders:
        found[name]["gflops"] = flops / found[name]["median_ms"] / 1e6
    return found


def _receive(pipe: multiprocessing.connection.Connection, name: str) -> dict | list:
    try:
        return pipe.recv()
    except EOFError as error:
        raise UserError(f"the process of {name} has ended; its message is above.") from error


def work(pipe: multiprocessing.connection.Connection, name: str, model: str) -> None:
    """A contender's process: steps when told, and at the end its memory."""
    start = time.perf_counter()
    size = SIZES.get(model, 150)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8)
    labels = (np.arange(BATCH) % 5).astype(np.int32)
    make = keras_step if name == "keras" else flax_step
    step, flops = make(name, model, images, labels)
    step()
    pipe.send({"first_step_s": time.perf_counter() - start, **flops})
    for _ in range(2):
        step()
    while pipe.recv() == "steps":
        times = []
        for _ in range(3):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        pipe.send(times)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"peak_memory_mb": kilobytes / (1e6 if sys.platform == "darwin" else 1e3)})


def flax_step(
    name: str, model: str, images: np.ndarray, labels: np.ndarray
) -> tuple[Step, dict[str, float]]:
    """This package's training step; as 'plain' without what makes it fast on CPU."""
    import functools

    import jax
    from flax import linen as nn

    from flowers_jax import cpu, train
    from flowers_jax.models import pooling

    if name == "plain":
        pooling.max_pool = nn.max_pool
        options = {}
    else:
        cpu.reuse_memory()
        options = cpu.compiler_options()
    changes = {"model": model, "dtype": "bfloat16" if name == "bfloat16" else "float32"}
    changes["aux_weight"] = 1.0 if model == "googlenet" else None
    config = runner.Run("common", changes, Path()).load()
    task = train.create_task(config, 5)
    create = jax.jit(functools.partial(train.create_state, task, images.shape[1]))
    keys = {name: jax.random.key(0) for name in ("dropout", "augment")}
    state, sums = create(jax.random.key(0)), train.zero_sums(task.model)
    batch = {"image": images, "label": labels, "index": labels, "mask": labels >= 0}
    batch = jax.device_put(batch)
    jitted = jax.jit(
        functools.partial(train.train_step, task), donate_argnums=(0, 1), compiler_options=options
    )
    cost = jitted.lower(state, sums, batch, keys).cost_analysis()

    def step() -> None:
        nonlocal state, sums
        state, sums = jax.block_until_ready(jitted(state, sums, batch, keys))

    return step, {"flops": cost["flops"]} if name == "ours" else {}


def keras_step(
    name: str, model: str, images: np.ndarray, labels: np.ndarray
) -> tuple[Step, dict[str, float]]:
    """Keras' own `train_on_batch`, compiled, of the study's model."""
    del name
    import os

    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    from flowers_jax.keras_models import create_keras_model

    network = create_keras_model(model, images.shape[1])
    loss = keras.losses.SparseCategoricalCrossentropy()
    network.compile("adam", [loss] * len(network.outputs))
    inputs = tf.constant(images / np.float32(127.5) - np.float32(1))
    targets = [tf.constant(labels)] * len(network.outputs)
    if len(targets) == 1:
        targets = targets[0]
    return lambda: network.train_on_batch(inputs, targets), {}


if __name__ == "__main__":
    command.run(main)
