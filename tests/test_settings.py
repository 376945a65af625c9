import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from configs import common
from flowers_jax import keras_models, models, optimizers, reference, settings
from flowers_jax.models import layers
from flowers_jax.process.errors import UserError
from flowers_jax.runs import run_folder


def test_all_faults_are_named_in_one_message():
    config = common.get_config()
    config.model = "resnet"
    config.input_scaling = "unit"
    config.batch_size = 0
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = -1.0
    config.data.split = "random"
    config.seed = -1
    config.data.validation_fraction = 1.5
    with pytest.raises(UserError) as error:
        settings.check(config)
    for part in (
        "model='resnet' is not one of pilot_cnn",
        "input_scaling='unit' is not one of none, 0_1",
        "batch_size=0 must not be less than 1",
        "optimizer.name='rmsprop' is not one of adam",
        "optimizer.learning_rate=-1.0 must be greater than 0",
        "seed=-1 must not be less than 0",
        "data.split='random' is not one of keras, holdout, stratified, none",
        "data.validation_fraction=1.5 must be less than 1",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "one", "seed='one' is not an integer"),
        ("seed", True, "seed=True is not an integer"),
        ("batch_size", 3.5, "batch_size=3.5 is not an integer"),
        ("optimizer.learning_rate", float("nan"), "learning_rate=nan is not a number"),
        ("optimizer.beta_1", 1.0, "beta_1=1.0 must be less than 1"),
        ("data", "flowers", "data='flowers' is not a group of settings"),
        ("data.dir", 3, "data.dir=3 is not text"),
        ("data.augment", {"zooom": 0.1}, "augment.zooom, did you mean data.augment.zoom?"),
        ("early_stopping.patience", 0, "early_stopping.patience=0 must not be less than 1"),
        ("data.augment", {"zoom": "far"}, "data.augment.zoom='far' is not a number"),
        ("optimizer.nesterov", True, "setting optimizer.nesterov; there are name, learning_rate"),
        ("optimizer.lr", 0.1, "setting optimizer.lr, did you mean optimizer.learning_rate?"),
        ("patience", 3, "there is no setting patience, did you mean early_stopping.patience?"),
        ("optimiser", {"lr": 1}, "there is no setting optimiser, did you mean optimizer?"),
        ("optimizer", None, "optimizer=None is not a group of settings"),
        ("model", ["alexnet"], "model=['alexnet'] is not one of pilot_cnn"),
        ("batch_size", "8", "batch_size='8' is not an integer"),
        ("class_weights", {0: 1.0, 1: 2.0}, "class_weights={0: 1.0, 1: 2.0} is neither"),
        ("optimizer.weight_decay", 0.1, "weight_decay=0.1: adam takes beta_1, beta_2, epsilon"),
        ("num_replicas", 2, "there is no setting num_replicas"),
        ("seed", 2**32, "seed=4294967296 must be less than 4294967296"),
        ("model_args", {"last_kernel": "5"}, "model_args.last_kernel='5' is not an integer"),
        ("model_args", {"conv_dropout": 2}, "model_args.conv_dropout=2 must be less than 1"),
        ("model_args", {"kernel": 5}, "base_cnn takes the arguments conv_dropout, last_kernel"),
        ("early_stopping.restore_best_weights", 1, "=1 is not True or False"),
        ("batch_sise", 32, "there is no setting batch_sise, did you mean batch_size?"),
        ("optimizer.learnig_rate", 1.0, "did you mean optimizer.learning_rate?"),
        ("on_non_finite", "skip", "on_non_finite='skip' is not one of stop, skip_step, ignore"),
        ("frozen", "block1_*", "frozen='block1_*' is not a tuple of names"),
        ("frozen", (3,), "frozen=(3,) is not a tuple of names"),
        ("frozen", ("block1_*",), "frozen=block1_* matches no layer; base_cnn has Conv_0"),
        ("frozen", ("Conv_*", "Dense_*"), "frozen=Conv_*, Dense_* leaves no layer to train"),
        ("init_from", "no.h5", "init_from='no.h5' is neither a file nor a run folder"),
        ("aux_weight", 0.3, "aux_weight=0.3, but base_cnn has no auxiliary heads"),
        ("model", "googlenet", "aux_weight is not set, and googlenet has the heads main, aux1"),
        ("data.leaked", 80, "data.leaked=80 needs data.split='holdout'"),
        ("data.test_fraction", 0.2, "data.test_fraction=0.2 needs data.split='stratified'"),
        ("data.num_folds", 5, "data.num_folds=5 needs data.split='stratified'"),
        ("data.fold", 1, "data.fold=1 does not exist; needs num_folds"),
        ("class_weights", "even", "class_weights='even' is neither 'balanced' nor a tuple"),
        ("class_weights", (1.0, 0.0), "class_weights=(1.0, 0.0) is neither 'balanced' nor"),
        ("eval_tta", True, "eval_tta=True needs data.augment with a flip"),
        ("optimizer.schedule", "cosine", "optimizer.schedule_args of cosine: cosine() missing"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(key, value, message):
    config = common.get_config()
    *path, last = key.split(".")
    group = config
    for part in path:
        group = group[part]
    group[last] = value
    with pytest.raises(UserError, match=re.escape(message)):
        settings.check(config)


def test_a_damaged_run_to_start_from_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    config = common.get_config()
    config.init_from = str(tmp_path)
    with pytest.raises(UserError, match=r"config.json is damaged or cannot be read"):
        settings.check(config)


def test_a_config_is_made_by_default_config():
    for wrong in (None, {"model": "alexnet"}, "configs/quickstart.py"):
        with pytest.raises(UserError, match=f"config is a {type(wrong).__name__}; take default_co"):
            settings.check(wrong)


def test_paths_and_numbers_of_numpy_are_taken(tmp_path):
    config = settings.from_json(json.loads(common.get_config().to_json()))
    for again in (common.get_config(), config):
        again.data.dir = again.workdir = tmp_path
        again.optimizer.learning_rate = np.logspace(-3, -1, 3)[1]
        again.batch_size, again.class_weights = np.int64(8), np.array([1.0, 2.0])
        stored = json.loads(settings.check(again).to_json())
        assert stored["data"]["dir"] == stored["workdir"] == str(tmp_path)
        assert stored["optimizer"]["learning_rate"] == pytest.approx(0.01)
        assert (stored["batch_size"], stored["class_weights"]) == (8, [1.0, 2.0])


@pytest.mark.parametrize("key", ["seed", "optimizer", "data.split", "early_stopping.mode"])
def test_a_setting_that_is_left_out_has_its_default(key):
    config = common.get_config()
    *path, last = key.split(".")
    group = config
    for part in path:
        group = group[part]
    del group[last]
    assert settings.check(config).to_dict() == settings.check(common.get_config()).to_dict()


def test_an_optimizer_has_its_own_defaults_and_refuses_the_arguments_of_others(monkeypatch):
    monkeypatch.setitem(optimizers.OPTIMIZERS, "rmsprop", lambda schedule, rho=0.9: None)
    assert settings.check(common.get_config()).optimizer.rho is None
    config = common.get_config()
    config.optimizer.name = "adadelta"
    assert settings.check(config).optimizer.rho == 0.95
    config.optimizer.name = "rmsprop"
    assert settings.check(config).optimizer.rho == 0.9
    config.optimizer.momentum = 0.5
    with pytest.raises(UserError, match=r"optimizer.momentum=0.5: rmsprop takes rho"):
        settings.check(config)


def test_a_run_of_0_1_holds_the_arguments_of_all_optimizers_and_goes_on():
    stored = json.loads(settings.check(common.get_config()).to_json())
    now = settings.from_json(stored).to_dict()
    stored["optimizer"] |= {"rho": 0.95, "momentum": 0.0, "initial_accumulator_value": 0.1}
    assert settings.from_json(stored).to_dict() == now


def test_a_removed_setting_and_a_changed_value_are_said_with_both_values(tmp_path):
    stored = json.loads(settings.check(common.get_config()).to_json())
    del stored["data"]["exif_orientation"]  # not known yet to the version that wrote it
    old = settings.from_json(stored)
    run_folder.require_same_settings(tmp_path, old, settings.check(common.get_config()))
    stored |= {"label_smoothing": 0.1, "batch_size": 64}
    with pytest.raises(UserError, match=r"batch_size was 64 and is 32; label_smoothing was 0.1 "):
        run_folder.require_same_settings(
            tmp_path, settings.from_json(stored), settings.check(common.get_config())
        )


class Lacking(layers.Classifier):
    def __call__(self, images, train=False):
        return images


class NoLogits(layers.Classifier):
    @nn.compact
    def __call__(self, images, train=False, mask=None):
        return nn.Dense(7, dtype=jnp.bfloat16)(layers.flatten(images))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Lacking, "the model mine __call__ takes no mask=None, see"),
        (nn.Dense, "the model mine takes no num_classes, dtype and ops"),
        (NoLogits, r"NoLogits gives the logits {'main': ((1, 7), 'bfloat16')}, but must give"),
    ],
)
def test_what_a_model_lacks_is_named(monkeypatch, model, message):
    monkeypatch.setitem(models.MODELS, "mine", model)
    config = common.get_config()
    config.model, config.image_size = "mine", 16
    with pytest.raises(UserError, match=re.escape(message)):
        settings.check(config)


def test_a_defect_of_a_model_is_not_taken_for_a_small_image(monkeypatch):
    class Broken(layers.Classifier):
        @nn.compact
        def __call__(self, images, train=False, mask=None):
            raise ValueError("a mistake of mine")

    monkeypatch.setitem(models.MODELS, "mine", Broken)
    config = common.get_config()
    config.model = "mine"
    with pytest.raises(ValueError, match="a mistake of mine"):
        settings.check(config)


def test_ranges_of_the_augmentation_that_are_left_out_change_nothing():
    config = common.get_config()
    config.data.augment = ConfigDict({"zoom": 0.1})
    assert settings.check(config).data.augment.to_dict() == {
        "rotation_degrees": 0.0,
        "zoom": 0.1,
        "horizontal_flip": False,
        "vertical_flip": False,
    }


def test_settings_of_the_version_before_are_read():
    stored = json.loads(common.get_config().to_json())
    del stored["model_args"]
    stored |= {"num_replicas": 1, "model": "base_cnn_conv5x5_gap"}
    config = settings.check(settings.from_json(stored))
    assert config.model == "base_cnn"
    assert config.model_args.to_dict() == {"last_kernel": 5, "global_pool": True}


def test_a_monitor_that_is_not_logged_is_refused_with_the_columns_there_are():
    config = common.get_config()
    config.early_stopping.monitor = "val_main_accuracy"
    with pytest.raises(UserError, match="base_cnn logs loss, accuracy, val_loss, val_accuracy"):
        settings.check(config)
    config.model = "googlenet"
    config.image_size = 224
    config.aux_weight = 1.0
    settings.check(config)


def reaches_the_classifier(layers, size):
    """Whether something is left of an image after these layers of the reference file."""
    for layer in layers:
        if "auxiliary_head" in layer:
            if not reaches_the_classifier(layer["layers"], size):
                return False
            continue
        window = layer.get("kernel") or layer.get("max_pool") or layer.get("average_pool")
        if window and layer.get("padding", "valid") == "valid":
            size = (size - window) // layer["stride"] + 1
        elif window:
            size = -(-size // layer["stride"])
        if size < 1:
            return False
    return True


@pytest.mark.parametrize("name", keras_models.ARCHITECTURES)
def test_an_image_too_small_for_the_model_is_refused_with_the_least_size(name):
    layers = reference.study()["architectures"][keras_models.ARCHITECTURES[name]]
    least = next(n for n in range(1, 300) if reaches_the_classifier(layers, n))
    config = common.get_config()
    config.model, config.aux_weight = name, 1.0 if name == "googlenet" else None
    config.image_size = least - 1
    with pytest.raises(UserError, match=f"too small for {name}; it needs at least {least}"):
        settings.check(config)
    config.image_size = least
    settings.check(config)


def test_folds_and_fractions_that_do_not_exist_are_refused():
    config = common.get_config()
    config.data.update(split="stratified", num_folds=5, fold=5)
    with pytest.raises(UserError, match=r"data.fold=5 does not exist; the folds are 0 to 4"):
        settings.check(config)
    config.data.update(fold=4, test_fraction=0.9)
    settings.check(config)  # folds need no validation_fraction
    config.data.update(num_folds=None, fold=0)
    with pytest.raises(UserError, match=r"test_fraction=0.9 leave no training images"):
        settings.check(config)
