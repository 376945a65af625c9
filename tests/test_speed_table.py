"""The tables of docs/speed.md and docs/accelerators.md."""

import copy
import json

import pytest

from benchmarks import tables

RECORD = {
    "date": "2030-01-02",
    "machine": "x86_64",
    "cores": 2,
    "versions": {"python": "3.13.0", "jax": "1.0"},
    "data_source": "folder flowers",
    "batch": 32,
    "matrix_product_gflops": 123.4,
    "decoded_images_per_second": {"ours": [100.0, 300.0, 200.0]},
    "models": {
        "base_cnn": {
            "ours": {
                "first_step_s": 8.25,
                "second_first_step_s": 3.56,
                "peak_memory_mb": 1234.5,
                "median_ms": 100.4,
                "seconds": [0.1, 0.1004, 0.2],
                "images_per_second": 300.2,
                "epoch_overhead": 1.054,
                "epoch_seconds": [11.5],
            },
            "keras": {
                "first_step_s": 2.0,
                "peak_memory_mb": 1000.0,
                "median_ms": 200.8,
                "seconds": [0.2008],
            },
        }
    },
}


def write(folder, **records):
    for name, record in records.items():
        (folder / f"{name}.json").write_text(json.dumps(record))
    return tables.render(tables.load(folder))


def test_the_pages_are_up_to_date():
    for page, text in tables.pages().items():
        assert page.read_text("utf-8") == text, "run python benchmarks/tables.py"


def test_what_compiles_for_tpus_is_a_row_for_each_config(tmp_path):
    cost = {"error": None, "seconds": 14.4, "argument_bytes": 1e9, "temporary_bytes": 7e9}
    cost |= {"bytes_accessed": 4.194e9, "least_seconds": 5.121e-3}
    names = ("config", "topology", "step")
    steps = [
        {**cost, **dict(zip(names, ("b", "v5e:1x1", "train"), strict=True))},
        {**cost, **dict(zip(names, ("b", "v5e:1x1", "eval"), strict=True))},
        {**cost, **dict(zip(names, ("a", "v5e:1x1", "train"), strict=True)), "error": "no room"},
        {**cost, **dict(zip(names, ("a", "v5e:2x4", "eval"), strict=True))},
    ]
    record = {"date": "2030-01-02", "versions": {"jax": "1.0", "libtpu": "2.0"}, "steps": steps}
    (tmp_path / "found.json").write_text(json.dumps(record))
    lines = tables.render_compiled(tables.load(tmp_path)).splitlines()
    assert lines[0] == "2030-01-02, jax 1.0, libtpu 2.0:"
    assert lines[4:6] == [
        "| `a` |  |  |  |  |  | eval |  |  |  |  |",
        "| `b` | train, eval | 14 | 50.0% | 4.19 | 5.12 |  |  |  |  |  |",
    ]
    assert lines[-1] == "- a v5e:1x1 train: no room"


def test_a_measurement_gives_its_rows_with_date_machine_versions_and_command(tmp_path):
    lines = write(tmp_path, one=RECORD).splitlines()
    assert "| `base_cnn` | this package | 100.4 | 1.00 | 8.2 | 3.6 | 1234 |" in lines
    assert "|  | Keras | 200.8 | 0.50 | 2.0 |  | 1000 |" in lines
    assert "| `base_cnn` | 100.4 | 11.5 | 300 | 1.05 |" in lines
    assert "| this package | 200 | 100 | 300 | 3 |" in lines
    command = "python benchmarks/benchmark.py --models=base_cnn --peers=keras --epochs=1 --steps=3"
    assert lines.count(command) == 3
    caption = (
        "2030-01-02, CPU (x86_64), 2 CPU cores, matrix product 123 GFLOP/s, batch 32, folder "
        "flowers; python 3.13.0, jax 1.0:"
    )
    assert " ".join(lines).count(caption) == 3


def test_a_recorded_command_is_shown_without_the_names_of_files(tmp_path):
    command = "python x.py --out=a.json --models=vgg16 --data.dir 'my photographs' --peers="
    shown = write(tmp_path, one={**RECORD, "command": command})
    assert "\npython x.py --models=vgg16 --peers=\n" in shown


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, "2030-01-03"),
        ({"device": "NVIDIA H200"}, "both"),  # another device replaces nothing
        ({"models": {"base_cnn": {"ours": RECORD["models"]["base_cnn"]["ours"]}}}, "2030-01-02"),
    ],
)
def test_a_step_is_shown_as_last_measured_beside_others_on_its_device(tmp_path, change, shown):
    newer = {**copy.deepcopy(RECORD), "date": "2030-01-03", **change}
    steps = write(tmp_path, a=newer, b=RECORD).split("## A training epoch")[0]
    dates = [date for date in ("2030-01-02", "2030-01-03") if date in steps]
    assert dates == (["2030-01-02", "2030-01-03"] if shown == "both" else [shown])


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError):
        tables.update("no marks", "tables")
