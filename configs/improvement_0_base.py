"""The base CNN from which the improvements start (row "Ejecución base").

The table gives 70.34 %; the best epoch of the run has 70.57 %.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "improvement_0_base"
    config.model = "base_cnn"
    return config
