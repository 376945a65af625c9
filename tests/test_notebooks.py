"""The notebooks, and a run in a notebook, executed by a kernel."""

import json
import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs pip install '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="needs pip install '.[test]'")
pytest.importorskip("ipykernel", reason="needs pip install '.[test]'")

NOTEBOOKS = sorted(Path("notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


@pytest.fixture
def execute(monkeypatch):
    """Executes a notebook; gives it back, with the error that ended it if there was one."""

    def execute(notebook, folder, **parameters):
        monkeypatch.setenv("FLOWERS_NOTEBOOK", json.dumps({"INSTALL": False, **parameters}))
        monkeypatch.delenv("FLOWERS_DIR", raising=False)
        monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel has its own
        client = nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
        )
        try:
            client.execute()
        except nbclient.exceptions.CellExecutionError as error:
            return notebook, error
        return notebook, None

    return execute


def cells(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])


def texts(cell, name=None):
    """What a cell printed, on the stream of this name or on any."""
    streams = [output for output in cell.outputs if output.output_type == "stream"]
    return "".join(s.text for s in streams if name in (None, s.name))


def pictures(cell):
    return [output for output in cell.outputs if "image/png" in output.get("data", {})]


def test_there_is_one_for_kaggle_and_one_for_colab():
    assert NAMES == ["colab", "kaggle"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_outputs_are_committed(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert 10 <= len(notebook.cells) <= 14
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_trains_and_shows_the_run_and_leaves_it_when_finished(path, execute, tmp_path):
    parameters = {
        "RUNS": str(tmp_path),
        "SETTINGS": {
            **{"data.source": "drawn", "max_epochs": 1},
            **{"model": "pilot_cnn", "image_size": 32},
        },
    }
    for line in ("epoch 1/1: loss", "is finished; --restart begins anew"):
        notebook, error = execute(nbformat.read(path, as_version=4), path.parent, **parameters)
        assert error is None
        by_id = {cell.id: cell for cell in notebook.cells}
        assert texts(by_id["train"]).count(line) == 1
        assert "flowers-jax" not in texts(by_id["install"])
        assert re.search(r"python 3\.\d+\.\d+, .*jax \d.*\n\[CpuDevice", texts(by_id["devices"]))
        assert "drawn flowers (no photographs): 500 images" in texts(by_id["data"])
        assert [len(pictures(by_id[name])) for name in ("data", "results", "mistakes")] == [1, 2, 1]
        assert re.search(r"\d+ of 100 validation images", texts(by_id["mistakes"]))
        assert len(pictures(by_id["classify"])) == 1
        assert len(re.findall(r"^ *\d+\.\d%  \w+$", texts(by_id["classify"]), re.M)) == 5
    assert (tmp_path / "improvement_4_batchnorm" / "summary.json").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_without_images_says_so_in_one_sentence(path, execute, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "nothing"))
    notebook, error = execute(
        nbformat.read(path, as_version=4), path.parent, RUNS=str(tmp_path / "runs")
    )
    assert error is not None
    cell = next(cell for cell in notebook.cells if cell.id == "data")
    said = texts(cell, "stderr").strip().splitlines()
    assert said[-1].startswith("no images found: give --config.data.dir=DIR")
    assert not any("Traceback" in line for line in said)
    assert not [output for output in cell.outputs if output.output_type == "error"]
    # "Run all" ends here.
    assert not any(c.get("outputs") for c in notebook.cells[notebook.cells.index(cell) + 1 :])


def test_a_config_that_does_not_exist_is_one_sentence_in_a_notebook(execute, tmp_path):
    notebook, error = execute(
        nbformat.read("notebooks/kaggle.ipynb", as_version=4),
        "notebooks",
        **{"CONFIG": "improvement_4", "RUNS": str(tmp_path)},
    )
    assert error is not None
    (cell,) = (cell for cell in notebook.cells if cell.id == "data")
    assert texts(cell) == "there is no config 'improvement_4'; give a name of configs/.\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_far_from_its_clone_asks_for_the_address(path, execute, tmp_path):
    nowhere = str(tmp_path / "no_such_repository")
    _, error = execute(nbformat.read(path, as_version=4), tmp_path, REPOSITORY=nowhere)
    assert f"{nowhere} cannot be cloned: set REPOSITORY in the first cell." in str(error)


SET_UP = """
import logging, os, signal
from flowers_jax import settings
from flowers_jax.runs import notebook, progress
from flowers_jax.train import train_and_evaluate

logging.basicConfig(format="the host: %(message)s", level=logging.INFO)
host = logging.getLogger()
before = host.level, list(host.handlers)
notebook.set_up()
notebook.set_up()
config = settings.default_config()
config.update_from_flattened_dict(
    {"model": "pilot_cnn", "image_size": 16, "batch_size": 16, "max_epochs": 2}
)
config.data.dir = "IMAGES"
numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
"""
TWICE = """
handlers = [signal.getsignal(number) for number in numbers]
for name in ("a", "b"):
    train_and_evaluate(config, f"RUNS/{name}")
assert [signal.getsignal(number) for number in numbers] == handlers
assert (host.level, host.handlers) == before
"""
INTERRUPTED = """
advance = progress.EpochBar.advance

def stopped(bar, metrics):
    advance(bar, metrics)
    progress.EpochBar.advance = advance
    os.kill(os.getpid(), signal.SIGINT)

progress.EpochBar.advance = stopped
handlers = [signal.getsignal(number) for number in numbers]
train_and_evaluate(config, "RUNS/c")
"""
RESUMED = """
assert [signal.getsignal(number) for number in numbers] == handlers
train_and_evaluate(config, "RUNS/c")
"""


@pytest.mark.slow
def test_runs_in_a_notebook(execute, image_folder, tmp_path):
    sources = [
        text.replace("IMAGES", str(image_folder)).replace("RUNS", str(tmp_path / "runs"))
        for text in (SET_UP, TWICE, INTERRUPTED, RESUMED)
    ]
    notebook = cells(*sources)
    notebook.cells[2].metadata.tags = ["raises-exception"]  # which ends the cell only
    _, error = execute(notebook, os.getcwd())
    assert error is None
    set_up, twice, interrupted, resumed = notebook.cells
    assert not set_up.outputs
    # Each message once, and not by way of the host's handlers.
    assert "epoch" not in texts(twice, "stderr")
    lines = texts(twice, "stdout").splitlines()
    for epoch in (1, 2):
        assert sum(line.startswith(f"epoch {epoch}/2: loss") for line in lines) == 2
    # One bar for the cell, that of the last epoch.
    (bar,) = [output for output in twice.outputs if output.output_type != "stream"]
    assert re.search("epoch 2/2.*3/3.*loss", bar.data["text/plain"])
    assert "<pre" in bar.data["text/html"]

    # A stopped run says so in a sentence, and goes on in the next cell.
    assert texts(interrupted, "stderr").splitlines()[-1] == (
        "interrupted in epoch 1, step 1; the same command goes on from there"
    )
    assert not [output for output in interrupted.outputs if output.output_type == "error"]
    assert "goes on after epoch 0, step 1" in texts(resumed, "stdout")
    assert not texts(resumed, "stderr")
