"""VGG16 as in keras.applications, 224 px, with Adam (row "VGG16 Imp – Adam").

Raw pixels 0..255 make the first loss 48, and it never recovers.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "vgg16_keras_adam"
    config.model = "vgg16"
    config.image_size = 224
    config.input_scaling = "none"
    config.max_epochs = 200
    config.early_stopping.patience = 15
    return config
