import json
import math

import pytest

from flowers_jax import results
from flowers_jax.errors import UserError


def test_history_is_read_back_in_full_precision(tmp_path):
    columns = results.history_columns(("main", "aux1"))
    history = [{c: math.pi / (1 + i) for i, c in enumerate(columns)} | {"epoch": 1}]
    results.write_history(tmp_path, history, ("main", "aux1"))
    assert results.read_history(tmp_path) == history
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header.startswith("epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,")
    assert "val_aux1_accuracy" in header


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    results.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        results.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_differences_name_the_dotted_keys():
    old = {"a": 1, "b": {"c": 2, "d": None}}
    new = {"a": 1, "b": {"c": 3, "d": None}, "e": "x"}
    assert results.differences(old, new) == ["b.c was 2 and is 3", "e was None and is 'x'"]


def test_run_folders_are_set_aside_one_after_the_other(tmp_path):
    workdir = tmp_path / "run"
    assert results.set_aside(workdir) is None
    for number in (1, 2):
        workdir.mkdir()
        assert results.set_aside(workdir) == tmp_path / f"run.old{number}"


def test_a_run_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="run cannot be written \\(Not a directory\\)"):
        results.prepare(tmp_path / "file" / "run")


def test_a_path_that_is_no_utf8_is_written_as_an_escape(tmp_path):
    import numpy as np

    from flowers_jax.data.folder import ImageFolder

    files = ImageFolder(("a\udcff.jpg",), np.array([0]), ("x", "y"))
    results.write_predictions(tmp_path, files, np.array([[0.25, 0.75]]))
    row = (tmp_path / "predictions.csv").read_text().splitlines()[1]
    assert row == "a\\udcff.jpg,x,y,0.25,0.75"
