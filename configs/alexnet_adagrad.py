"""AlexNet with Adagrad (row "AlexNet – Adagrad").

The first to stop, after 31 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = common.get_config()
    config.study_run = "alexnet_adagrad"
    config.model = "alexnet"
    config.optimizer.name = "adagrad"
    return config
