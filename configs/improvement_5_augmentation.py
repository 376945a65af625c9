"""Improvement 4 with augmentation (row "Quinta mejora, primera ejecución").

The input is divided by 255 twice, as in the study. Its 80 validation images per class are held
out here; in the study 80 of the 400 were trained on too.
"""

from ml_collections import ConfigDict

from flowers_jax import settings


def get_config() -> ConfigDict:
    """The settings of the run."""
    config = settings.default_config()
    config.study_run = "improvement_5_augmentation"
    config.model = "improvement_4"
    config.input_scaling = "0_1_twice"
    config.data.split = "holdout"
    config.data.resize = "nearest"
    config.data.augment = ConfigDict(
        {
            "rotation_degrees": 15.0,
            "zoom": 0.1,
            "horizontal_flip": True,
            "vertical_flip": False,
        }
    )
    config.early_stopping.patience = 15
    return config
