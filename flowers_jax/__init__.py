"""Convolutional networks on an image folder, in JAX and Flax.

From Python: `run = flowers_jax.fit(config, workdir)`, with `config = flowers_jax.default_config()`
changed as one likes, or `run = flowers_jax.load(workdir)`; then `run.predict(images)`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from flowers_jax.run import Run

__version__ = "0.1.0"


# JAX is imported only when one of these is called.
def default_config() -> "ConfigDict":
    """The study's settings: 150 px, batch 32, Adam, Keras' split with seed 1337."""
    from flowers_jax import settings

    return settings.default_config()


def fit(config: "ConfigDict", workdir: str | Path) -> "Run":
    """Trains as `config` says and leaves the results in the folder `workdir`; see `run.fit`."""
    from flowers_jax import run

    return run.fit(config, workdir)


def load(workdir: str | Path) -> "Run":
    """The run in the folder `workdir`; see `run.load`."""
    from flowers_jax import run

    return run.load(workdir)
