"""AlexNet with Adagrad (row "AlexNet – Adagrad").

The first to stop, after 31 epochs.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "alexnet_adagrad"
    config.model = "alexnet"
    config.optimizer.name = "adagrad"
    return config
