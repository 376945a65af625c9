import importlib
import re
from pathlib import Path

import pytest

from flowers_jax import optimizers, reference, settings

RUNS = reference.study()["runs"]
CONFIGS = sorted(path.stem for path in Path("configs").glob("*.py") if path.stem != "common")
MODELS = {
    "pilot": "pilot_cnn",
    "base": "base_cnn",
    "base_v2": "base_cnn_v2",
    "imp1": "improvement_1",
    "imp2": "improvement_2",
    "imp3": "improvement_3",
    "imp4": "improvement_4",
}
SCALINGS = {
    "[0,1]": "0_1",
    "[-1,1]": "-1_1",
    "none (0..255)": "none",
    "[0,1] twice (1/255 in the generator and again in the model)": "0_1_twice",
}


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def test_there_is_a_config_for_every_run_and_four_more():
    extra = {"googlenet_adam", "googlenet_adagrad", "quickstart", "vgg16_imagenet_finetune"}
    assert set(CONFIGS) == {run["id"] for run in RUNS} | extra


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_can_be_used(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels.h5").touch()
    settings.check(load(name))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["id"])
def test_the_settings_are_those_of_the_reference_file(run):
    config = load(run["id"])
    assert config.study_run == run["id"]
    assert config.model == MODELS.get(run["architecture"], run["architecture"])
    for key in ("image_size", "batch_size", "max_epochs"):
        assert config[key] == run[key]
    assert config.input_scaling == SCALINGS[run["input_scaling"]]
    given = {key: value for key, value in config.optimizer.items() if value is not None}
    optimizer = optimizers.arguments(config.optimizer.name) | given
    assert {key: optimizer[key] for key in run["optimizer"]} == run["optimizer"]
    if run["early_stopping"] is None:
        assert config.early_stopping is None
    else:
        assert config.early_stopping.to_dict() == run["early_stopping"]
    split, fraction = config.data.split, config.data.validation_fraction
    kind = run["split"].split(":")[0].split()[0]
    assert split == {"keras": "keras", "none": "none", "separate": "holdout"}[kind]
    if split == "keras":
        assert (config.data.split_seed, fraction) == (1337, 0.2)
    if split == "holdout":
        assert config.data.holdout_per_class == 80
    assert config.data.resize == run["resize"].split(",")[0]
    theirs = run.get("augmentation")
    ours = config.data.augment
    if theirs is None:
        assert ours is None
    else:
        assert ours.rotation_degrees == theirs["rotation_range_degrees"]
        assert ours.zoom == theirs["zoom_range"]
        for flip in ("horizontal_flip", "vertical_flip"):
            assert ours[flip] == theirs[flip]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["id"])
def test_the_comment_names_the_row_of_the_study(run):
    text = (Path("configs") / f"{run['id']}.py").read_text()
    assert f'(row "{run["memoria_row"]}")' in re.sub(r"\s+", " ", text)
