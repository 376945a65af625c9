"""A 5x5 convolution and a fourth layer (row "Primera mejora Capa conv 5x5").

The table gives 73.35 %; the best epoch of the run has 73.58 %.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "improvement_1_conv5x5"
    config.model = "improvement_1"
    return config
