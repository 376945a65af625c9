import json
import os

import pytest

from flowers_jax.process.errors import UserError
from flowers_jax.runs import files


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="run cannot be written \\(Not a directory\\)"):
        files.prepare(tmp_path / "file" / "run")


def test_only_a_regular_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("", "a folder"), ("pipe", "not a regular file")):
        with pytest.raises(UserError, match=f"is {what}; name a file to write"):
            files.prepare_file(tmp_path / name)
    files.prepare_file(tmp_path / "new" / "table.csv")
    assert (tmp_path / "new").is_dir()


def test_a_table_is_read_back(tmp_path):
    files.write_csv(tmp_path / "a.csv", ["x", "y"], [[1, "a,b"], [2.5, '"']])
    assert files.read_csv(tmp_path / "a.csv") == [{"x": "1", "y": "a,b"}, {"x": "2.5", "y": '"'}]
    assert files.read_csv(tmp_path / "none.csv") == []


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary.json is damaged or cannot be read .*; remove it"):
        files.read_json(tmp_path / "summary.json")
    assert files.read_json(tmp_path / "none.json") is None
