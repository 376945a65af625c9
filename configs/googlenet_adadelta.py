"""GoogLeNet with Adadelta (row "GoogLeNet – Adadelata").

Early stopping watched val_accuracy, which a Keras model with three outputs does not log, so all
200 epochs ran: hence none here.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "googlenet_adadelta"
    config.model = "googlenet"
    config.image_size = 224
    config.input_scaling = "none"
    config.aux_weight = 1.0
    config.max_epochs = 200
    config.optimizer.name = "adadelta"
    config.early_stopping = None
    return config
