from pathlib import Path

import pytest

from configs import common
from flowers_jax.data import folder, sources
from flowers_jax.process.errors import UserError


@pytest.fixture
def config():
    return common.get_config().data


def test_the_folder_of_the_config_goes_before_the_environment(config, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("FLOWERS_DIR", str(tmp_path / "other"))
    assert sources.resolve(config, tmp_path).root == tmp_path / "other"
    config.dir = str(tmp_path / "mine")
    source = sources.resolve(config, tmp_path)
    assert (source.root, source.name) == (tmp_path / "mine", "folder mine")


@pytest.mark.parametrize("variable", ["config.data.dir", "the environment variable FLOWERS_DIR"])
def test_a_named_folder_that_does_not_exist_is_never_replaced(
    config, tmp_path, monkeypatch, variable
):
    monkeypatch.delenv("FLOWERS_DIR", raising=False)
    if variable == "config.data.dir":
        config.dir = str(tmp_path / "nowhere")
    else:
        monkeypatch.setenv("FLOWERS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=f"{variable} names .*nowhere, which is not a folder"):
        sources.resolve(config, tmp_path)


def test_the_kaggle_input_folder_is_found(config, tmp_path, monkeypatch):
    monkeypatch.delenv("FLOWERS_DIR", raising=False)
    monkeypatch.setattr(sources, "KAGGLE_INPUTS", (tmp_path / "a", tmp_path))
    assert sources.resolve(config, tmp_path).root == tmp_path


def test_without_any_data_the_message_names_all_ways(config, tmp_path, monkeypatch):
    import kagglehub

    def offline(handle):
        raise ConnectionError(f"no network for {handle}\nsecond line")

    monkeypatch.delenv("FLOWERS_DIR", raising=False)
    monkeypatch.setattr(kagglehub, "dataset_download", offline)
    with pytest.raises(UserError) as error:
        sources.resolve(config, tmp_path)
    for part in ("config.data.dir", "FLOWERS_DIR", "Kaggle", "kagglehub", "tfds", "drawn"):
        assert part in str(error.value)
    assert "second line" not in str(error.value)


def test_drawn_flowers_are_named_as_such(config, tmp_path):
    config.source = "drawn"
    source = sources.resolve(config, tmp_path)
    assert source.name == "drawn flowers (no photographs)"
    assert len(folder.scan(source.root).class_names) == 5


def test_export_writes_an_image_folder_that_appears_when_complete(tmp_path):
    root = tmp_path / "tf_flowers"
    seen = []

    def examples():
        for i in range(4):
            seen.append(root.exists())
            yield i % 2, bytes([i])

    sources.export(examples(), ["daisy", "tulips"], root)
    assert not any(seen)
    index = folder.scan(root)
    assert index.class_names == ("daisy", "tulips")
    contents = [Path(path).read_bytes()[0] for path in index.paths]
    assert contents == [0, 2, 1, 3]
