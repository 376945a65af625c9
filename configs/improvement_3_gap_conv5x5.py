"""A 5x5 convolution before the pooling (row "Tercera mejora GAP + conv 5x5").

From here on the input is scaled to 0..1, and epsilon is 1e-8.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "improvement_3_gap_conv5x5"
    config.model = "improvement_3"
    config.input_scaling = "0_1"
    config.optimizer.epsilon = 1e-8
    return config
