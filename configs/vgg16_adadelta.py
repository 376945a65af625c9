"""VGG16 at 150 px with Adadelta (row "VGG16 – Adadelata").

It hardly moves in 29 epochs.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_adadelta"
    config.model = "vgg16"
    config.max_epochs = 200
    config.optimizer.name = "adadelta"
    config.early_stopping.patience = 15
    return config
