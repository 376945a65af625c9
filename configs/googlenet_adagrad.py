"""GoogLeNet with Adagrad, which the study did not try; otherwise as its GoogLeNet runs."""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.model = "googlenet"
    config.image_size = 224
    config.input_scaling = "none"
    config.aux_weight = 1.0
    config.max_epochs = 200
    config.optimizer.name = "adagrad"
    config.early_stopping = None
    return config
