"""One step of training and one of evaluation, as pure functions of state and batch."""

import dataclasses
from functools import partial
from typing import Any, TypedDict

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from flowers_jax import losses, metrics, transfer
from flowers_jax.data import augment, scaling
from flowers_jax.data.batches import Batch
from flowers_jax.models import Variables
from flowers_jax.models.layers import Classifier, Images, Logits

Scalar = Float[Array, ""]


class Keys(TypedDict):
    """Typed PRNG keys: `dropout` of the run, `augment` of the epoch."""

    dropout: Key[Array, ""]
    augment: Key[Array, ""]


@flax.struct.dataclass
class TrainState:
    """What a training step changes.

    Attributes:
      step: steps taken.
      params: the model's parameters, float32.
      batch_stats: running statistics of batch normalisation; empty for models without it.
      opt_state: the optimizer's state.
    """

    step: Int[Array, ""]
    params: Variables
    batch_stats: Variables
    opt_state: optax.OptState

    @property
    def variables(self) -> Variables:
        """As `model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class Metrics:
    """Sums over the real samples of an epoch; they stay on the devices until it ends.

    Attributes:
      count: number of samples.
      sums: of each metric, by `metrics.names`.
      non_finite_steps: steps whose loss or gradient was not finite.
      non_finite_step: number of the first of them, from 1, over the run.
      non_finite_gradient_norm: norm of its gradient.
    """

    count: Scalar
    sums: dict[str, Scalar]
    non_finite_steps: Scalar
    non_finite_step: Scalar
    non_finite_gradient_norm: Scalar

    @classmethod
    def zero(cls, heads: tuple[str, ...]) -> "Metrics":
        """Before the first batch, for a network with these heads."""
        zero = jnp.zeros(())
        return cls(zero, dict.fromkeys(metrics.names(heads), zero), zero, zero, zero)

    def add(self, values: dict[str, jax.Array], mask: Bool[Array, " batch"]) -> "Metrics":
        """With the metrics of the samples of a batch where `mask` is true."""
        total = partial(jnp.sum, where=mask, dtype=jnp.float32)
        sums = {name: self.sums[name] + total(value) for name, value in values.items()}
        count = self.count + total(jnp.ones(mask.shape))
        return dataclasses.replace(self, count=count, sums=sums)

    def averages(self, prefix: str = "") -> dict[str, float]:
        """The metrics of the epoch, by column of the history; NaN without samples."""
        found = jax.device_get(self)
        count = float(found.count) or np.nan
        return {prefix + name: float(value) / count for name, value in found.sums.items()}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training step does not change.

    Attributes:
      model: the architecture.
      optimizer: its update rule.
      loss: of one head, per sample.
      aux_weight: weight of the auxiliary heads' losses.
      input_scaling: a name of `scaling.SCALINGS`.
      augmentations: of the training images, in order.
      frozen: names of the layers that keep their weights, see `transfer.is_frozen`.
      on_non_finite: 'stop', 'skip_step' or 'ignore', see `train_step`.
      class_weights: of the classes in the loss of training; None for none.
      views: flips whose probabilities are averaged where nothing is trained, see `augment.views`.
    """

    model: Classifier
    optimizer: optax.GradientTransformation
    loss: losses.Loss
    aux_weight: float
    input_scaling: str
    augmentations: tuple[augment.Transform, ...]
    frozen: tuple[str, ...] = ()
    on_non_finite: str = "stop"
    class_weights: tuple[float, ...] | None = None
    views: tuple[tuple[int, ...], ...] = ((),)


def create_state(task: Task, image_size: int, key: Key[Array, ""]) -> TrainState:
    """The state before the first step, initialised as Keras does."""
    variables = task.model.init(key, jnp.zeros((1, image_size, image_size, 3)))
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=task.optimizer.init(params),
    )


def train_step(
    task: Task, state: TrainState, epoch: Metrics, batch: Batch, keys: Keys
) -> tuple[TrainState, Metrics]:
    """One step of gradient descent, with dropout.

    Returns:
      The state after the step, and the epoch's metrics with this batch. Where the loss or the norm
      of its gradient is not finite, the metrics say so unless `task.on_non_finite` is 'ignore';
      with 'skip_step' the parameters and the sums stay as they were.
    """
    images = train_images(task, batch, keys)
    loss = losses.weighted(task.loss, task.class_weights)

    def objective(params: Variables) -> tuple[Scalar, tuple[Metrics, Variables]]:
        params = transfer.stop_gradients(params, task.frozen)
        with nn.intercept_methods(transfer.inference_where_frozen(task.frozen)):
            logits, updated = apply_heads(
                task,
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mask=batch["mask"],
                rngs={"dropout": jax.random.fold_in(keys["dropout"], state.step)},
                mutable=["batch_stats"],
            )
        values = metrics.per_sample(logits, batch["label"], loss, task.aux_weight)
        of_batch = Metrics.zero(task.model.HEADS).add(values, batch["mask"])
        return of_batch.sums["loss"] / of_batch.count, (of_batch, updated)

    gradients, (of_batch, updated) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=updated.get("batch_stats", {}),
        opt_state=opt_state,
    )
    if task.on_non_finite != "ignore":
        # Of twice the gradients: XLA would share squares with Adam's and write them to memory.
        doubled = [2 * leaf for leaf in jax.tree.leaves(gradients)]
        norm = jnp.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in doubled)) / 2
        finite = jnp.isfinite(of_batch.sums["loss"]) & jnp.isfinite(norm)
        if task.on_non_finite == "skip_step":
            keep = partial(jax.tree.map, partial(jnp.where, finite))
            new_state = keep(new_state, dataclasses.replace(state, step=new_state.step))
            of_batch = keep(of_batch, Metrics.zero(task.model.HEADS))
        first = ~finite & (epoch.non_finite_steps == 0)
        of_batch = dataclasses.replace(
            of_batch,
            non_finite_steps=(~finite).astype(jnp.float32),
            non_finite_step=jnp.where(first, new_state.step, 0).astype(jnp.float32),
            non_finite_gradient_norm=jnp.where(first, norm, 0),
        )
    return new_state, jax.tree.map(jnp.add, epoch, of_batch)


def train_images(task: Task, batch: Batch, keys: Keys) -> Images:
    """The images of a batch as the network sees them in training."""
    images = batch["image"]
    if task.augmentations:
        images = augment.augment(images, batch["index"], keys["augment"], task.augmentations)
    return scaling.scale(images, task.input_scaling)


def eval_step(task: Task, variables: Variables, epoch: Metrics, batch: Batch) -> Metrics:
    """The epoch's metrics with this batch: no dropout, running statistics, all heads."""
    logits = inference(task, variables, batch["image"])
    values = metrics.per_sample(logits, batch["label"], task.loss, task.aux_weight)
    return epoch.add(values, batch["mask"])


def predict_step(
    task: Task, variables: Variables, images: UInt8[Array, "batch height width 3"]
) -> Float[Array, "batch classes"]:
    """Class probabilities, by the main head."""
    return jax.nn.softmax(inference(task, variables, images)[task.model.HEADS[0]])


def inference(
    task: Task, variables: Variables, images: UInt8[Array, "batch height width 3"]
) -> dict[str, Logits]:
    """`{head: logits}`; of several `task.views` the log of the mean probabilities."""
    scaled = scaling.scale(images, task.input_scaling)
    if task.views == ((),):
        return apply_heads(task, variables, scaled)
    of_views = [apply_heads(task, variables, jnp.flip(scaled, axes)) for axes in task.views]
    logs = jax.tree.map(lambda *views: jax.nn.log_softmax(jnp.stack(views)), *of_views)
    return jax.tree.map(lambda log: jax.nn.logsumexp(log, axis=0) - np.log(len(log)), logs)


def apply_heads(task: Task, variables: Variables, images: Images, **options: Any) -> Any:  # noqa: ANN401
    """`{head: logits}`; with `mutable` among the options also the changed collections."""
    return task.model.apply(variables, images, method="heads", **options)
