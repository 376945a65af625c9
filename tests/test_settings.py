import pytest

from configs import common
from flowers_jax import settings
from flowers_jax.errors import UserError


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
        "batch_size=0 must be greater than 0",
        "optimizer.name='rmsprop' is not one of adam",
        "optimizer.learning_rate=-1.0 must be",
        "seed=-1 must not be negative",
        "data.split='random' is not one of keras, holdout, none",
        "validation_fraction=1.5",
    ):
        assert part in str(error.value)


def test_a_monitor_that_is_not_logged_is_refused_with_the_columns_there_are():
    config = common.get_config()
    config.early_stopping.monitor = "val_main_accuracy"
    with pytest.raises(UserError, match="base_cnn logs loss, accuracy, val_loss, val_accuracy"):
        settings.check(config)
    config.model = "googlenet"
    config.image_size = 224
    settings.check(config)


def test_an_image_too_small_for_the_model_is_refused():
    config = common.get_config()
    config.model = "vgg16"
    config.image_size = 16
    with pytest.raises(UserError, match="image_size=16 is too small for vgg16"):
        settings.check(config)
