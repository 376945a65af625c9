"""The settings most runs of the study share; each config changes a few of them.

All of them, with their defaults and the values they may have, stand in `flowers_jax/settings.py`.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The study's settings: 150 px, batch 32, Adam, Keras' split with seed 1337."""
    return settings.default_config()
