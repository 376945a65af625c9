"""Not in the study: VGG16 with ImageNet's weights, of which only the dense layers are trained.

The weights are the file that `keras.applications.VGG16()` downloads; give another one with
--config.init_from=FILE.
"""

import os
from pathlib import Path

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.model = "vgg16"
    config.image_size = 224
    config.input_scaling = "caffe"
    keras_home = Path(os.environ.get("KERAS_HOME", "~/.keras"))
    config.init_from = str(keras_home / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels.h5")
    config.frozen = ("block*",)
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    return config
