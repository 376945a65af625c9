"""The ablations as data: which variants each compares."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowers_jax.study import figures

Changes = dict[str, Any]
# A config and its changed settings, by their dotted keys.
Variant = tuple[str, Changes]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Variants that are compared.

    Attributes:
      name: its runs go to `runs/ablation_<name>`.
      title: of the figure.
      variants: by their names.
      extra: writes into that folder what only this ablation shows.
    """

    name: str
    title: str
    variants: dict[str, Variant]
    extra: Callable[[Path], None] | None = None


def _base(changes: Changes) -> Variant:
    return "improvement_0_base", changes


CONV5X5 = {"model_args.last_kernel": 5}
GAP = {"model_args.global_pool": True}
SCALING = {"input_scaling": "0_1"}
BATCH_NORM = {"model_args.batch_norm": True}
AUGMENTATION = {
    "data.augment": {
        "rotation_degrees": 15.0,
        "zoom": 0.1,
        "horizontal_flip": True,
        "vertical_flip": True,
    }
}

# A step of the study, a cumulative variant, changed several things, see its config. A variant alone
# changes one thing of the base CNN, an added one one thing of the variant before; the first of
# these is alone_conv5x5. All have the first split and the patience of the base CNN.
IMPROVEMENTS = Sweep(
    "improvements",
    "The improvements, cumulative and alone",
    {
        "base": _base({}),
        "cumulative_1_conv5x5": ("improvement_1_conv5x5", {}),
        "cumulative_2_gap": ("improvement_2_gap", {}),
        "cumulative_3_gap_conv5x5": ("improvement_3_gap_conv5x5", {}),
        "cumulative_4_batchnorm": ("improvement_4_batchnorm", {}),
        "cumulative_5_augmentation": ("improvement_4_batchnorm", AUGMENTATION),
        "alone_conv5x5": _base(CONV5X5),
        "alone_gap": _base(GAP),
        "alone_scaling": _base(SCALING),
        "alone_batchnorm": _base(BATCH_NORM),
        "alone_augmentation": _base(AUGMENTATION),
        "added_2_gap": _base(CONV5X5 | GAP),
        "added_3_scaling": _base(CONV5X5 | GAP | SCALING),
        "added_4_batchnorm": _base(CONV5X5 | GAP | SCALING | BATCH_NORM),
        "added_5_augmentation": _base(CONV5X5 | GAP | SCALING | BATCH_NORM | AUGMENTATION),
    },
)

RATES = {
    "adam": (0.0001, 0.0003, 0.001, 0.003),
    "adadelta": (0.001, 0.01, 0.1, 1.0),
    "adagrad": (0.001, 0.003, 0.01, 0.03),
    "sgd": (0.001, 0.003, 0.01, 0.03),
}
OPTIMIZERS = Sweep(
    "optimizers",
    "Base CNN: optimizers and learning rates",
    {
        f"{name}_{rate}": _base({"optimizer.name": name, "optimizer.learning_rate": rate})
        for name, rates in RATES.items()
        for rate in rates
    },
    figures.write_rates,
)

LOSS = Sweep(
    "loss",
    "Base CNN: cross-entropy and squared error",
    {loss: _base({"loss": loss}) for loss in ("cross_entropy", "squared_error")},
    figures.write_losses,
)

AUXILIARY = Sweep(
    "auxiliary",
    "GoogLeNet: weight of the auxiliary heads",
    {f"weight_{w}": ("googlenet_sgd", {"aux_weight": w}) for w in (0.0, 0.3, 1.0)},
    figures.write_heads,
)

LEAK = Sweep(
    "leak",
    "Improvement 5 with leaked validation images",
    {
        f"leaked_{count}": ("improvement_5_augmentation", {"data.leaked": count})
        for count in (0, 80, 400)
    },
)

SWEEPS = (IMPROVEMENTS, OPTIMIZERS, LOSS, AUXILIARY, LEAK)
