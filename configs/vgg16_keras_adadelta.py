"""VGG16 as in keras.applications, 224 px, with Adadelta (row "VGG16 Imp – Adadelata").

Raw pixels 0..255 make up for the small learning rate.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_keras_adadelta"
    config.model = "vgg16"
    config.image_size = 224
    config.input_scaling = "none"
    config.max_epochs = 200
    config.optimizer.name = "adadelta"
    config.early_stopping.patience = 15
    return config
