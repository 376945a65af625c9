"""The ablations as data: which variants each compares."""

import itertools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from flowers_jax.study import figures

Variant = tuple[str, dict[str, Any]]  # a config and its changed settings, by their dotted keys


class Sweep(NamedTuple):
    """Variants that are compared."""

    name: str  # its runs go to `runs/ablation_<name>`
    title: str  # of the figure
    variants: dict[str, Variant]
    extra: Callable[[Path], None] | None = None  # writes into that folder what only it shows


BASE = "improvement_0_base"
AUGMENT = {"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": True}
# What the study improved, in its order.
CHANGES: dict[str, dict[str, Any]] = {
    "conv5x5": {"model_args.last_kernel": 5},
    "gap": {"model_args.global_pool": True},
    "scaling": {"input_scaling": "0_1"},
    "batchnorm": {"model_args.batch_norm": True},
    "augmentation": {"data.augment": AUGMENT},
}
SUMS = list(itertools.accumulate(CHANGES.values(), operator.or_))

# A step of the study, a cumulative variant, changed several things, see its config. A variant alone
# changes one thing of the base CNN, an added one one thing of the variant before; the first of
# these is alone_conv5x5. All have the first split and the patience of the base CNN.
IMPROVEMENTS = Sweep(
    "improvements",
    "The improvements, cumulative and alone",
    {
        "base": (BASE, {}),
        "cumulative_1_conv5x5": ("improvement_1_conv5x5", {}),
        "cumulative_2_gap": ("improvement_2_gap", {}),
        "cumulative_3_gap_conv5x5": ("improvement_3_gap_conv5x5", {}),
        "cumulative_4_batchnorm": ("improvement_4_batchnorm", {}),
        "cumulative_5_augmentation": ("improvement_4_batchnorm", CHANGES["augmentation"]),
        **{f"alone_{name}": (BASE, change) for name, change in CHANGES.items()},
        **{f"added_{i + 1}_{name}": (BASE, SUMS[i]) for i, name in enumerate(CHANGES) if i > 0},
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
        f"{name}_{rate}": (BASE, {"optimizer.name": name, "optimizer.learning_rate": rate})
        for name, rates in RATES.items()
        for rate in rates
    },
    figures.write_rates,
)

LOSS = Sweep(
    "loss",
    "Base CNN: cross-entropy and squared error",
    {loss: (BASE, {"loss": loss}) for loss in ("cross_entropy", "squared_error")},
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
    {f"leaked_{n}": ("improvement_5_augmentation", {"data.leaked": n}) for n in (0, 80, 400)},
)

SWEEPS = (IMPROVEMENTS, OPTIMIZERS, LOSS, AUXILIARY, LEAK)
