"""Adam, Adadelta, Adagrad and SGD with Keras' update rules, on optax.

The arguments' defaults are Keras' and stand in `configs/common.py`; optax's differ in all of them
but Adagrad's.
"""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from flowers_jax.errors import UserError


def create_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimizer that `config.optimizer` describes.

    Args:
      config: `name`, `learning_rate`, `schedule`, `schedule_args` and the arguments of the
        optimizers (each takes those that are its own).

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

    `config.schedule` is the name of a schedule of optax, `config.schedule_args` its arguments;
    `config.learning_rate` is its peak value if it has one, otherwise its first value.

    Raises:
      UserError: optax has no such schedule, or it does not take these arguments.
    """
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    factory = getattr(optax.schedules, config.schedule, None)
    parameters = inspect.signature(factory).parameters if callable(factory) else {}
    rate_names = [n for n in ("peak_value", "init_value", "value") if n in parameters]
    if not rate_names:
        known = sorted(name for name in dir(optax.schedules) if name.endswith("_schedule"))
        raise UserError(
            f"optax has no learning-rate schedule {config.schedule!r}; "
            f"choose 'constant' or one of {', '.join(known)}."
        )
    arguments = {rate_names[0]: config.learning_rate, **config.schedule_args}
    if rate_names[0] == "peak_value" and "init_value" in parameters:
        arguments.setdefault("init_value", 0.0)
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.schedule_args of {config.schedule}: {error}.") from error


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
    # Keras' velocity accumulates steps, not gradients: a change of the rate leaves it as it is.
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
