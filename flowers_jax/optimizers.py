"""Adam, Adadelta, Adagrad and SGD with Keras' update rules, on optax, and learning-rate schedules.

The arguments' defaults are Keras' and stand in `settings.py`; optax' differ for all but Adagrad.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from flowers_jax.process.errors import UserError


def create_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimizer that `config.optimizer` describes.

    Args:
      config: `name`, `learning_rate`, `schedule`, `schedule_args` and the arguments of all
        optimizers, of which each takes its own.

    Raises:
      UserError: there is no such optimizer or schedule.
    """
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"there is no optimizer {config.name!r}; choose one of {', '.join(OPTIMIZERS)}."
        )
    return OPTIMIZERS[config.name](config, learning_rate_schedule(config))


def learning_rate_schedule(config: ConfigDict) -> optax.Schedule:
    """The learning rate as a function of the step, from 0.

    `config.learning_rate` is its largest value, `config.schedule_args` the schedule's arguments.

    Raises:
      UserError: there is no such schedule, or it does not take these arguments.
    """
    if config.schedule not in SCHEDULES:
        raise UserError(
            f"there is no schedule {config.schedule!r}; choose one of {', '.join(SCHEDULES)}."
        )
    try:
        return SCHEDULES[config.schedule](config.learning_rate, **config.schedule_args)
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


SCHEDULES: Mapping[str, Callable[..., optax.Schedule]] = {
    "constant": optax.constant_schedule,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
    "piecewise": piecewise,
}


def _adam(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.chain(
        scale_by_keras_adam(config.beta_1, config.beta_2, config.epsilon),
        optax.scale_by_learning_rate(schedule),
    )


def _adadelta(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.adadelta(schedule, rho=config.rho, eps=config.epsilon)


def _adagrad(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    return optax.adagrad(schedule, config.initial_accumulator_value, eps=config.epsilon)


def _sgd(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    scale = optax.scale_by_learning_rate(schedule)
    # Keras' velocity accumulates steps, not gradients: it keeps its value when the rate changes.
    return optax.chain(scale, optax.trace(config.momentum)) if config.momentum else scale


OPTIMIZERS: dict[str, Callable[[ConfigDict, optax.Schedule], optax.GradientTransformation]] = {
    "adam": _adam,
    "adadelta": _adadelta,
    "adagrad": _adagrad,
    "sgd": _sgd,
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
