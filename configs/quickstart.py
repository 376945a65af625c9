"""A small run on drawn flowers: no data to download, less than half a minute on two CPU cores."""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.model = "base_cnn"
    config.image_size = 64
    config.data.source = "drawn"
    config.max_epochs = 10
    return config
