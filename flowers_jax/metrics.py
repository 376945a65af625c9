"""The metrics of a training step: one table from which columns, sums and printed lines follow.

`loss` comes first and is the weighted sum over the heads; a network of several heads also has each
metric for each head, such as `aux1_accuracy`.
"""

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Float, Int, Shaped

from flowers_jax.models.layers import Logits
from flowers_jax.process.errors import UserError

Labels = Int[Array, " batch"]
PerSample = Float[Array, " batch"]

# Of each sample; besides the loss, which is `config.loss`.
METRICS: dict[str, Callable[[Logits, Labels], Shaped[Array, " batch"]]] = {
    "accuracy": lambda logits, labels: logits.argmax(axis=-1) == labels,
}


def per_sample(
    logits: dict[str, Logits],
    labels: Labels,
    loss: Callable[[Logits, Labels], PerSample],
    aux_weight: float,
) -> dict[str, jax.Array]:
    """Every metric of every sample, by the names of `names`.

    Args:
      logits: of each head, the main one first.
      labels: true classes.
      loss: of one head.
      aux_weight: weight of the losses of the heads other than the main one. The study added them
        with weight 1, the GoogLeNet paper (section 5) with 0.3.

    Raises:
      UserError: a metric gives something else than a value per sample.
    """
    by_head = {
        head: {
            "loss": loss(values, labels),
            **{name: metric(values, labels) for name, metric in METRICS.items()},
        }
        for head, values in logits.items()
    }
    for values in by_head.values():
        for name, value in values.items():
            if value.shape != labels.shape:
                raise UserError(
                    f"the metric {name} gives an array {list(value.shape)} for {len(labels)} "
                    "samples; it must give one value per sample."
                )
    main, *auxiliary = by_head.values()
    total = main["loss"] + aux_weight * sum(values["loss"] for values in auxiliary)
    result = {**main, "loss": total}
    if auxiliary:
        for head, values in by_head.items():
            result |= {f"{head}_{name}": value for name, value in values.items()}
    return result


def names(heads: Sequence[str]) -> list[str]:
    """The metrics of a network with these heads; `columns` of the validation split begin `val_`."""
    own = ["loss", *METRICS]
    return own + [f"{head}_{name}" for head in heads if len(heads) > 1 for name in own]


def columns(heads: Sequence[str]) -> list[str]:
    """What can be monitored: every metric on the training and on the validation images."""
    return [prefix + name for prefix in ("", "val_") for name in names(heads)]
