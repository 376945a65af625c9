"""VGG16 as in keras.applications, 224 px, with SGD (row "VGG16 Imp – SGD").

The table gives 63.73 %; the best epoch of the run has 65.24 %.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_keras_sgd"
    config.model = "vgg16"
    config.image_size = 224
    config.input_scaling = "none"
    config.max_epochs = 200
    config.optimizer.name = "sgd"
    config.early_stopping.patience = 15
    return config
