"""VGG16 at 150 px with Adam (row "VGG16 – Adam").

It never learns: every image is a dandelion.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_adam"
    config.model = "vgg16"
    config.max_epochs = 200
    config.early_stopping.patience = 15
    return config
