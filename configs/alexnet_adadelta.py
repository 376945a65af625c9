"""AlexNet with Adadelta (row "AlexNet – Adadelata").

Keras' learning rate of 0.001 hardly moves: the slowest of the four.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "alexnet_adadelta"
    config.model = "alexnet"
    config.optimizer.name = "adadelta"
    return config
