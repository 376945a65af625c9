"""Optimizers with Keras' update rules and defaults, on optax, and learning-rate schedules.

optax' defaults differ for all but Adagrad.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from flowers_jax.process.errors import UserError


def create_optimizer(config: ConfigDict, steps_per_epoch: int = 1) -> optax.GradientTransformation:
    """The optimizer that `config.optimizer` describes.

    Args:
      config: `name`, `learning_rate`, `schedule`, `schedule_args`, and those arguments of the
        optimizer that do not have their default.
      steps_per_epoch: for a schedule that counts epochs.

    Raises:
      UserError: there is no such optimizer or schedule.
    """
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"there is no optimizer {config.name!r}; choose one of {', '.join(OPTIMIZERS)}."
        )
    given = {name: config.get(name) for name in arguments(config.name)}
    given = {name: value for name, value in given.items() if value is not None}
    return OPTIMIZERS[config.name](learning_rate_schedule(config, steps_per_epoch), **given)


def arguments(name: str) -> dict[str, Any]:
    """The arguments of an optimizer, with their defaults."""
    _, *parameters = inspect.signature(OPTIMIZERS[name]).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters}


def is_argument(name: str) -> bool:
    """Whether some optimizer takes this argument."""
    return any(name in arguments(optimizer) for optimizer in OPTIMIZERS)


def learning_rate_schedule(config: ConfigDict, steps_per_epoch: int = 1) -> optax.Schedule:
    """The learning rate as a function of the step, from 0.

    `config.learning_rate` is its largest value, `config.schedule_args` the schedule's arguments.
    Those that count steps may count epochs: `decay_epochs` instead of `decay_steps`, and
    `boundary_epochs` instead of `boundaries`.

    Raises:
      UserError: there is no such schedule, or it does not take these arguments.
    """
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"there is no schedule {config.schedule!r}; choose one of {', '.join(SCHEDULES)}."
        )
    in_steps = {}
    for name, value in config.schedule_args.items():
        if name.endswith("_epochs"):
            in_one = name.removesuffix("_epochs") + "_steps"
            name = {"boundary_steps": "boundaries"}.get(in_one, in_one)
            value = jax.tree.map(lambda epochs: round(epochs * steps_per_epoch), value)
        in_steps[name] = value
    try:
        return SCHEDULES[config.schedule](config.learning_rate, **in_steps)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.schedule_args of {config.schedule}: {error}.") from error


def cosine(learning_rate: float, decay_steps: int, alpha: float = 0.0) -> optax.Schedule:
    """Falls to `alpha` times the learning rate over `decay_steps`, along half a cosine."""
    return optax.cosine_decay_schedule(learning_rate, decay_steps, alpha)


def warmup_cosine(
    learning_rate: float, warmup_steps: int, decay_steps: int, end_value: float = 0.0
) -> optax.Schedule:
    """Rises linearly from 0 over `warmup_steps`, then falls to `end_value` at `decay_steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, warmup_steps, decay_steps, end_value
    )


def piecewise(
    learning_rate: float, boundaries: Sequence[int], scales: Sequence[float]
) -> optax.Schedule:
    """Multiplied by each of `scales` from the step of the same place in `boundaries` on."""
    factors = dict(zip(boundaries, scales, strict=True))
    return optax.piecewise_constant_schedule(learning_rate, factors)


# Functions of the largest rate and of the arguments.
SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": optax.constant_schedule,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
    "piecewise": piecewise,
}


def adam(
    schedule: optax.Schedule, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Kingma and Ba 2015, as in Keras."""
    return optax.chain(
        scale_by_keras_adam(beta_1, beta_2, epsilon), optax.scale_by_learning_rate(schedule)
    )


def adamw(
    schedule: optax.Schedule,
    weight_decay: float = 0.004,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> optax.GradientTransformation:
    """Adam with decoupled weight decay of kernels (Loshchilov and Hutter 2019), as in Keras."""
    return optax.chain(
        scale_by_keras_adam(beta_1, beta_2, epsilon),
        optax.add_decayed_weights(weight_decay, mask=kernels),
        optax.scale_by_learning_rate(schedule),
    )


def kernels(params: optax.Params) -> optax.Params:
    """A mask for weight decay, which leaves out biases and normalisation."""
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) > 1, params)


def adadelta(
    schedule: optax.Schedule, rho: float = 0.95, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Zeiler 2012."""
    return optax.adadelta(schedule, rho=rho, eps=epsilon)


def adagrad(
    schedule: optax.Schedule, initial_accumulator_value: float = 0.1, epsilon: float = 1e-7
) -> optax.GradientTransformation:
    """Duchi, Hazan and Singer 2011."""
    return optax.adagrad(schedule, initial_accumulator_value, eps=epsilon)


def sgd(schedule: optax.Schedule, momentum: float = 0.0) -> optax.GradientTransformation:
    """Stochastic gradient descent."""
    scale = optax.scale_by_learning_rate(schedule)
    # Keras' velocity accumulates steps, not gradients: it keeps its value when the rate changes.
    return optax.chain(scale, optax.trace(momentum)) if momentum else scale


# Functions of the schedule and of arguments, which become settings, with their defaults.
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "adamw": adamw,
    "adadelta": adadelta,
    "adagrad": adagrad,
    "sgd": sgd,
}


def scale_by_keras_adam(
    beta_1: float, beta_2: float, epsilon: float
) -> optax.GradientTransformation:
    """Adam's direction with epsilon where Keras puts it: added before the bias correction.

    Keras: `sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)`; optax (and the paper's
    algorithm 1) corrects `v` before the square root, which makes epsilon larger by
    `1 / sqrt(1 - beta_2^t)`, 31-fold in the first step.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), mu=zeros, nu=zeros)

    def update(
        gradients: optax.Updates, state: optax.ScaleByAdamState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(gradients, state.mu, beta_1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, beta_2, 2)
        count = state.count + 1
        correction = jnp.sqrt(1 - beta_2**count) / (1 - beta_1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)
