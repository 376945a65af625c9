"""VGG16 at 150 px with Adagrad (row "VGG16 – Adagrad").

The only one of the four that learns.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_adagrad"
    config.model = "vgg16"
    config.max_epochs = 200
    config.optimizer.name = "adagrad"
    config.early_stopping.patience = 15
    return config
