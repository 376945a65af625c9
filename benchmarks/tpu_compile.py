"""Compiles the steps of every config for a TPU, on a machine that has none.

python benchmarks/tpu_compile.py --configs='improvement_*,googlenet_sgd' --topologies=v5e:2x4

libtpu compiles without a TPU (pip install '.[tpu-compile]'). Each step is compiled as a run
dispatches it, in a process of its own, so that an abort of the compiler is a row and not the end. A
table goes to the terminal, and everything to --out as JSON after each step. Bytes and operations
are those of one chip; the least time of a step is that of its operations or of its bytes, whichever
takes longer at the chip's peak. The exit status is 1 if a step did not compile. A file kept in
benchmarks/tpu/ becomes a table of docs/accelerators.md, by tables.py.
"""

import collections
import importlib.metadata
import importlib.util
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import clone  # noqa: F401
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import files
from flowers_jax.runs.run_folder import versions
from flowers_jax.study.runner import Run
from flowers_jax.trainer import Trainer, create_task

CONFIGS = sorted(path.stem for path in Path(__file__).resolve().parents[1].glob("configs/[!_]*.py"))
CONFIGS.remove("common")
# Those of one host: Colab has the first, Kaggle the last.
TOPOLOGIES = ["v5e:1x1", "v5e:2x2", "v5e:2x4"]
STEPS = ["train", "eval", "predict"]
NUM_CLASSES = 5  # of the study's data
# Of a chip of v5e: bytes of memory, bfloat16 operations and bytes of memory traffic per second.
MEMORY, PEAK_FLOPS, PEAK_BYTES = 16e9, 197e12, 819e9
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    # What libtpu would ask of a TPU machine.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several of these commands may run at once
}
COLLECTIVES = re.compile(
    r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
HEADER = ["config", "topology", "step", "s to compile", "MB of arguments", "MB of temporaries"]
HEADER += ["of 16 GB", "GFLOP", "GB accessed", "collectives", "ms at least"]

# What is found of a step; `error` says why it did not compile.
Row = dict[str, Any]

_CONFIGS = flags.DEFINE_list("configs", ["*"], "Patterns of names in configs/.")
_TOPOLOGIES = flags.DEFINE_list(
    "topologies", ["v5e:1x1", "v5e:2x4"], f"Of {', '.join(TOPOLOGIES)}."
)
_STEPS = flags.DEFINE_list("steps", STEPS, f"Of {', '.join(STEPS)}.")
_OUT = flags.DEFINE_string("out", "runs/tpu_compile.json", "File for what is found.")


def main(arguments: Sequence[str]) -> None:
    """Compiles what the flags say."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    command.require_choices(_TOPOLOGIES, TOPOLOGIES)
    command.require_choices(_STEPS, STEPS)
    for pattern in _CONFIGS.value or [""]:
        if not any(fnmatchcase(name, pattern) for name in CONFIGS):
            raise UserError(f"--configs={pattern} matches none of {', '.join(CONFIGS)}.")
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "libtpu, which compiles for TPUs, is not installed; pip install '.[tpu-compile]'."
        )
    out = Path(_OUT.value)
    files.prepare_file(out)
    os.environ |= ENVIRONMENT
    found_versions = versions() | {"libtpu": importlib.metadata.version("libtpu")}
    rows: list[Row] = []
    for name in CONFIGS:
        if not any(fnmatchcase(name, pattern) for pattern in _CONFIGS.value):
            continue
        for topology in _TOPOLOGIES.value:
            for step in _STEPS.value:
                rows.append(compile_alone(name, topology, step))
                record = {"date": time.strftime("%Y-%m-%d"), "versions": found_versions}
                files.write_json(out, record | {"steps": rows})
                print(*cells(rows[-1]), sep="  ", flush=True)
    print(files.markdown(HEADER, map(cells, rows)), end="")
    if any(row["error"] for row in rows):
        sys.exit(1)


def cells(row: Row) -> list[str]:
    """A row under `HEADER`."""
    start = [row["config"], row["topology"], row["step"]]
    if row["error"]:
        return [*start, row["error"], *[""] * (len(HEADER) - 4)]
    return [
        *start,
        f"{row['seconds']:.0f}",
        f"{row['argument_bytes'] / 1e6:.1f}",
        f"{row['temporary_bytes'] / 1e6:.1f}",
        f"{(row['argument_bytes'] + row['temporary_bytes']) / MEMORY:.1%}",
        f"{row['flops'] / 1e9:.1f}",
        f"{row['bytes_accessed'] / 1e9:.2f}",
        ", ".join(f"{count} {name}" for name, count in row["collectives"].items()),
        f"{1e3 * row['least_seconds']:.2f}",
    ]


def compile_alone(config: str, topology: str, step: str) -> Row:
    """Compiles a step in a process of its own, which may be aborted."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    with tempfile.NamedTemporaryFile("r", errors="replace") as messages:
        arguments = (theirs, messages.name, config, topology, step)
        process = spawn.Process(target=_compile, args=arguments, daemon=True)
        process.start()
        theirs.close()
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            failed = re.search(r"Check failed: .*", messages.read())
            reason = f"killed (exit status {process.exitcode}), possibly out of memory"
            found = {"error": f"aborts: {failed[0]}" if failed else reason}
    return {"config": config, "topology": topology, "step": step, "error": None} | found


def _compile(pipe: Connection, messages: str, *what: str) -> None:
    """Sends what `compile_step` finds; what libraries print goes to a file."""
    with open(messages, "w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        pipe.send(compile_step(*what))
    except Exception as error:  # of the compiler, such as too little memory on the chip
        pipe.send({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


def compile_step(config_name: str, topology: str, step: str) -> Row:
    """Compiles a step for the chips of a topology."""
    config = Run(config_name, {}, Path()).load()
    bounds = [int(length) for length in topology.partition(":")[2].split("x")]
    described = topologies.get_topology_desc(
        platform="tpu", topology_name=topology, chips_per_host_bounds=(*bounds, 1)
    )
    mesh = Mesh(np.array(described.devices), ("data",), axis_types=(AxisType.Auto,))
    task = create_task(config, config.num_classes or NUM_CLASSES)
    trainer = Trainer(task, config.image_size, mesh, compiler_options={})
    lowered = trainer.lower(step, config.batch_size)
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    return {
        "seconds": seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "collectives": collections.Counter(COLLECTIVES.findall(compiled.as_text() or "")),
        "least_seconds": max(cost["flops"] / PEAK_FLOPS, cost["bytes accessed"] / PEAK_BYTES),
    }


if __name__ == "__main__":
    command.run(main)
