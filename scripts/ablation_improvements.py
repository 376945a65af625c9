"""The study's improvements of the base CNN: as it made them, each alone, and one after the other.

python scripts/ablation_improvements.py

A step of the study, a cumulative variant, changed several things, see its config. A variant alone
changes one thing of the base CNN, an added one one thing of the variant before; the first of these
is alone_conv5x5. All have the first split and the patience of the base CNN.
"""

import ablation

AUGMENTATION = {
    "rotation_degrees": 15.0,
    "zoom": 0.1,
    "horizontal_flip": True,
    "vertical_flip": True,
}
VARIANTS = {
    "base": ("improvement_0_base", {}),
    "cumulative_1_conv5x5": ("improvement_1_conv5x5", {}),
    "cumulative_2_gap": ("improvement_2_gap", {}),
    "cumulative_3_gap_conv5x5": ("improvement_3_gap_conv5x5", {}),
    "cumulative_4_batchnorm": ("improvement_4_batchnorm", {}),
    "cumulative_5_augmentation": (
        "improvement_4_batchnorm",
        {"data.augment": AUGMENTATION},
    ),
    "alone_conv5x5": ("improvement_0_base", {"model": "base_cnn_conv5x5"}),
    "alone_gap": ("improvement_0_base", {"model": "base_cnn_gap"}),
    "alone_scaling": ("improvement_0_base", {"input_scaling": "0_1"}),
    "alone_batchnorm": ("improvement_0_base", {"model": "base_cnn_batchnorm"}),
    "alone_augmentation": ("improvement_0_base", {"data.augment": AUGMENTATION}),
    "added_2_gap": ("improvement_0_base", {"model": "base_cnn_conv5x5_gap"}),
    "added_3_scaling": (
        "improvement_0_base",
        {"model": "base_cnn_conv5x5_gap", "input_scaling": "0_1"},
    ),
    "added_4_batchnorm": (
        "improvement_0_base",
        {"model": "base_cnn_conv5x5_gap_batchnorm", "input_scaling": "0_1"},
    ),
    "added_5_augmentation": (
        "improvement_0_base",
        {
            "model": "base_cnn_conv5x5_gap_batchnorm",
            "input_scaling": "0_1",
            "data.augment": AUGMENTATION,
        },
    ),
}

if __name__ == "__main__":
    ablation.main("The improvements, cumulative and alone", VARIANTS)
