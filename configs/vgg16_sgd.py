"""VGG16 at 150 px with SGD (row "VGG16 – SGD").

Never run: the published SGD notebook is byte for byte the Adadelta one, so both rows are equal
and there is no logged history.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_sgd"
    config.model = "vgg16"
    config.max_epochs = 200
    config.optimizer.name = "sgd"
    config.early_stopping.patience = 15
    return config
