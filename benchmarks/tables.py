"""The tables of docs/speed.md and docs/accelerators.md, from the JSON files in this folder.

python benchmarks/tables.py           rewrites them
python benchmarks/tables.py --check   exits with status 1 if they are out of date

A model is shown as it was last measured beside others on its device. Measurements of whole epochs
are all shown, newest first. The files in tpu/ are those of tpu_compile.py.
"""

import argparse
import json
import shlex
import statistics
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
DOCS = FOLDER.parent / "docs"
BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->"
NAMES = {
    "ours": "this package",
    "plain": "plain Flax",
    "keras": "Keras",
    "torch": "PyTorch",
    "bfloat16": "this package, bfloat16",
    "torch_bfloat16": "PyTorch, bfloat16",
}
DEFAULT_STEPS = 15  # of benchmark.py
LOCAL_FLAGS = ("--out", "--data.dir")
TPU_MEMORY = 16e9  # bytes of a chip of v5e

# A file that benchmark.py or tpu_compile.py wrote.
Record = dict[str, Any]


def load(folder: Path) -> list[Record]:
    """The measurements, newest first."""
    records = [(path.name, json.loads(path.read_text("utf-8"))) for path in folder.glob("*.json")]
    records.sort(key=lambda named: (named[1]["date"], named[0]), reverse=True)
    return [record for _, record in records]


def render(records: Sequence[Record]) -> str:
    """All tables, as Markdown."""
    sections = [
        ("A training step", list(_steps(records))),
        ("A training epoch", list(_epochs(records))),
        ("Decoding", list(_decoding(records))),
    ]
    return "\n".join(f"## {title}\n\n" + "\n".join(parts) for title, parts in sections if parts)


def _steps(records: Sequence[Record]) -> Iterator[str]:
    shown: set[tuple[str, str]] = set()  # device and model
    for record in records:
        found = {
            model: implementations
            for model, implementations in record["models"].items()
            if len(implementations) > 1 and (device(record), model) not in shown
        }
        shown |= {(device(record), model) for model in found}
        if found:
            rows = [
                row
                for model, implementations in found.items()
                for row in step_rows(model, implementations)
            ]
            header = ["model", "by", "ms per step", "ours / peer", "s to the first step"]
            header += ["at the second start", "peak MB"]
            yield f"{caption(record)}\n{table(header, rows)}"


def step_rows(model: str, implementations: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    """A row for each implementation."""
    ours = implementations["ours"]["median_ms"]
    for name, found in implementations.items():
        again = found.get("second_first_step_s")
        yield [
            f"`{model}`" if name == "ours" else "",
            NAMES.get(name, name),
            f"{found['median_ms']:.1f}",
            f"{ours / found['median_ms']:.2f}",
            f"{found['first_step_s']:.1f}",
            f"{again:.1f}" if again else "",
            f"{found['peak_memory_mb']:.0f}",
        ]


def _epochs(records: Sequence[Record]) -> Iterator[str]:
    header = ["model", "ms per step", "s per epoch", "images/s", "epoch / its steps"]
    for record in records:
        rows = [
            [
                f"`{model}`",
                f"{ours['median_ms']:.1f}",
                f"{statistics.median(ours['epoch_seconds']):.1f}",
                f"{ours['images_per_second']:.0f}",
                f"{ours['epoch_overhead']:.2f}",
            ]
            for model, ours in (
                (m, implementations["ours"]) for m, implementations in record["models"].items()
            )
            if ours.get("epoch_seconds")
        ]
        if rows:
            yield f"{caption(record)}\n{table(header, rows)}"


def _decoding(records: Sequence[Record]) -> Iterator[str]:
    header = ["by", "images/s, median", "slowest pass", "fastest pass", "passes"]
    for record in records:
        rows = [
            [
                NAMES.get(name, name),
                *(f"{of(speeds):.0f}" for of in (statistics.median, min, max)),
                str(len(speeds)),
            ]
            for name, speeds in record.get("decoded_images_per_second", {}).items()
        ]
        if rows:
            yield f"{caption(record)}\n{table(header, rows)}"


def render_compiled(records: Sequence[Record]) -> str:
    """What was compiled for TPUs, as Markdown: a row for each config."""
    return "\n".join(map(_compiled, records))


def _compiled(record: Record) -> str:
    steps = {(row["config"], row["topology"], row["step"]): row for row in record["steps"]}
    configs, topologies, names = (list(dict.fromkeys(parts)) for parts in zip(*steps, strict=True))
    columns = ["compiles", "s", "of 16 GB", "GB accessed", "ms at least"]
    header = ["config", *(f"{topology}: {name}" for topology in topologies for name in columns)]
    rows = []
    for config in sorted(configs):
        rows.append([f"`{config}`"])
        for topology in topologies:
            done = [n for n in names if not steps.get((config, topology, n), {"error": 1})["error"]]
            rows[-1].append(", ".join(done))
            found = steps[config, topology, "train"] if "train" in done else None
            rows[-1] += _cost(found) if found else [""] * (len(columns) - 1)
    errors = [f"- {' '.join(k)}: {row['error']}\n" for k, row in steps.items() if row["error"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    caption = textwrap.fill(f"{record['date']}, {versions}:", 100, break_on_hyphens=False)
    return "\n".join([caption, "", table(header, rows), *errors])


def _cost(row: dict[str, Any]) -> list[str]:
    memory = row["argument_bytes"] + row["temporary_bytes"]
    return [
        f"{row['seconds']:.0f}",
        f"{memory / TPU_MEMORY:.1%}",
        f"{row['bytes_accessed'] / 1e9:.2f}",
        f"{1e3 * row['least_seconds']:.2f}",
    ]


def device(record: Record) -> str:
    """What computed; measurements of a CPU do not name it."""
    return record.get("device") or f"CPU ({record['machine']})"


def caption(record: Record) -> str:
    """Date, machine, versions and the command."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    conditions = (
        f"{record['date']}, {device(record)}, {record['cores']} CPU cores, matrix product "
        f"{record['matrix_product_gflops']:.0f} GFLOP/s, batch {record['batch']}, "
        f"{record['data_source']}; {versions}:"
    )
    return f"{textwrap.fill(conditions, 100)}\n\n```\n{command(record)}\n```\n"


def command(record: Record) -> str:
    """The command line, without the flags that name files; rebuilt if the record lacks it."""
    if "command" in record:
        words = iter(shlex.split(record["command"]))
        shown = []
        for word in words:
            if not word.startswith(LOCAL_FLAGS):
                shown.append(word)
            elif "=" not in word:
                next(words, None)  # its value
        return shlex.join(shown)
    models = record["models"]
    ours = next(iter(models.values()))["ours"]
    peers = [name for name in next(iter(models.values())) if name != "ours"]
    flags = [f"--models={','.join(models)}", f"--peers={','.join(peers)}"]
    flags.append(f"--epochs={len(ours.get('epoch_seconds', []))}")
    if len(ours["seconds"]) != DEFAULT_STEPS:
        flags.append(f"--steps={len(ours['seconds'])}")
    return " ".join(["python benchmarks/benchmark.py", *flags])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def update(page: str, tables: str) -> str:
    """The page with other tables between its two marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{tables}{END}{after}"


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    tables = {
        DOCS / "speed.md": render(load(FOLDER)),
        DOCS / "accelerators.md": render_compiled(load(FOLDER / "tpu")),
    }
    return {page: update(page.read_text("utf-8"), text) for page, text in tables.items()}


def main() -> None:
    """Writes the pages, or checks them."""
    parser = argparse.ArgumentParser(description="The tables of docs/speed.md and accelerators.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if outdated")
    check = parser.parse_args().check
    for page, text in pages().items():
        if not check:
            page.write_text(text, "utf-8")
        elif page.read_text("utf-8") != text:
            sys.exit(f"docs/{page.name} is out of date: run python benchmarks/tables.py.")


if __name__ == "__main__":
    main()
