"""Batch normalisation instead of dropout (row "Cuarta mejora BatchNorm + Strides").

"Strides" is the first pool: 3x3, stride 2. Epsilon is 1e-8.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "improvement_4_batchnorm"
    config.model = "improvement_4"
    config.input_scaling = "0_1"
    config.optimizer.epsilon = 1e-8
    return config
