"""Between an experiment and its pure steps: devices, sharding, compilation, donated memory."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from flowers_jax import gradcam, losses, models, optimizers, transfer
from flowers_jax.data import augment
from flowers_jax.data.batches import batch_indices
from flowers_jax.models import Variables
from flowers_jax.models.layers import Images
from flowers_jax.ops import backend
from flowers_jax.step import (
    Batch,
    Keys,
    Metrics,
    Task,
    TrainState,
    create_state,
    eval_step,
    predict_step,
    train_images,
    train_step,
)

Tree = TypeVar("Tree")

log = logging.getLogger(__name__)


def create_mesh() -> Mesh:
    """All devices, on one axis `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def create_task(
    config: ConfigDict,
    num_classes: int,
    steps_per_epoch: int = 1,
    counts: Int[np.ndarray, " classes"] | None = None,
) -> Task:
    """The static part of the steps of a run.

    Args:
      config: of the run.
      num_classes: in the data.
      steps_per_epoch: which a schedule may need to know.
      counts: training images of each class, from which class weights may follow.

    Raises:
      UserError: the class weights are not as many as the classes.
    """
    optimizer = optimizers.create_optimizer(config.optimizer, steps_per_epoch)
    if config.frozen:
        optimizer = transfer.freeze_optimizer(optimizer, config.frozen)
    augmentation = config.data.augment
    if augmentation is not None:
        augmentation = json.loads(augmentation.to_json())  # a ConfigDict sorts its keys
    return Task(
        model=models.of_config(config, num_classes),
        optimizer=optimizer,
        loss=losses.LOSSES[config.loss],
        aux_weight=config.aux_weight or 0.0,
        input_scaling=config.input_scaling,
        augmentations=augment.transforms(augmentation or {}),
        frozen=tuple(config.frozen),
        on_non_finite=config.on_non_finite,
        class_weights=losses.class_weights(config.class_weights, counts),
        views=augment.views(augmentation) if config.eval_tta else ((),),
    )


class Trainer:
    """The compiled steps of a task on a mesh of devices.

    State and metrics are held by every device; a batch is split among them.

    Args:
      task: the static part of the steps.
      image_size: height and width of the images.
      mesh: the devices; all of them by default.
      compiler_options: of the steps and the first state; by default those of `ops.backend`.

    Attributes:
      jit: `jax.jit` with these options and results that every device holds.
    """

    def __init__(
        self,
        task: Task,
        image_size: int,
        mesh: Mesh | None = None,
        compiler_options: backend.Options | None = None,
    ) -> None:
        options = backend.compiler_options() if compiler_options is None else compiler_options
        self.task = task
        self._is_compiled = False
        self.mesh = mesh or create_mesh()
        self._image_size = image_size
        self._replicated = NamedSharding(self.mesh, PartitionSpec())
        of_samples = partial(jax.jit, compiler_options=options)
        replicated = partial(jax.jit, out_shardings=self._replicated)
        self.jit = partial(replicated, compiler_options=options)
        self._create_state = self.jit(partial(create_state, task, image_size))
        self._train_step = self.jit(partial(train_step, task), donate_argnums=0)
        self._eval_step = self.jit(partial(eval_step, task))
        self._train_images = self.jit(partial(train_images, task))
        self._predict_step = of_samples(partial(predict_step, task))
        self._grad_cam = of_samples(partial(gradcam.grad_cam, task), static_argnums=0)
        self._embed = of_samples(partial(gradcam.embed, task))
        self._split_keys = replicated(_split_keys, static_argnums=0)
        self._zero_metrics = replicated(partial(Metrics.zero, task.model.HEADS))
        self._copy = replicated(partial(jax.tree.map, jnp.copy))

    def create_state(self, seed: int) -> TrainState:
        """The state before the first step."""
        return self._create_state(self._split_keys(seed, 0)["init"])

    def keys(self, seed: int, epoch: int) -> Keys:
        """What the steps of an epoch draw from."""
        keys = self._split_keys(seed, epoch)
        return {"dropout": keys["dropout"], "augment": keys["augment"]}

    def zero_metrics(self) -> Metrics:
        """The metrics of an epoch before its first step."""
        return self._zero_metrics()

    def train_step(
        self, state: TrainState, epoch: Metrics, batch: Batch, keys: Keys
    ) -> tuple[TrainState, Metrics]:
        """As `step.train_step`; takes over the memory of `state`."""
        if self._is_compiled:
            return self._train_step(state, epoch, batch, keys)
        log.info("compiling the training step")
        start = time.perf_counter()
        result = self._train_step(state, epoch, batch, keys)
        log.info("compiled in %.1f s", time.perf_counter() - start)
        self._is_compiled = True
        return result

    def train_images(self, batch: Batch, keys: Keys) -> Images:
        """As `step.train_images`."""
        return self._train_images(batch, keys)

    def eval_step(self, variables: Variables, epoch: Metrics, batch: Batch) -> Metrics:
        """As `step.eval_step`."""
        return self._eval_step(variables, epoch, batch)

    def predict(
        self, variables: Variables, batches: Iterable[Batch]
    ) -> Float[np.ndarray, "n classes"]:
        """Class probabilities of the real samples, in the order of the batches."""
        return self._rows(lambda b: self._predict_step(variables, b["image"]), batches)

    def grad_cam(
        self, variables: Variables, batches: Iterable[Batch], layer: str
    ) -> Float[np.ndarray, "n rows columns"]:
        """As `gradcam.grad_cam`, of the real samples, in the order of the batches."""
        return self._rows(partial(self._grad_cam, layer, variables), batches)

    def embed(
        self, variables: Variables, batches: Iterable[Batch]
    ) -> Float[np.ndarray, "n channels"]:
        """As `gradcam.embed`, of the real samples, in the order of the batches."""
        return self._rows(partial(self._embed, variables), batches)

    def _rows(
        self, step: Callable[[Batch], jax.Array], batches: Iterable[Batch]
    ) -> Float[np.ndarray, "n ..."]:
        rows = [(step(batch), batch["mask"]) for batch in batches]
        if jax.process_count() > 1:
            rows = multihost_utils.process_allgather(rows, tiled=True)
        return np.concatenate([np.asarray(row)[np.asarray(mask)] for row, mask in rows])

    def lower(self, step: str, batch_size: int) -> jax.stages.Lowered:
        """The step 'train', 'eval' or 'predict', lowered for devices that need not be there.

        Args:
          step: its name.
          batch_size: samples in a batch, not counting padding.
        """

        def shapes(tree: Tree, *axes: str) -> Tree:
            sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
            struct = partial(jax.ShapeDtypeStruct, sharding=sharding)
            return jax.tree.map(lambda leaf: struct(leaf.shape, leaf.dtype), tree)

        first = partial(create_state, self.task, self._image_size, jax.random.key(0))
        start = (first, self.zero_metrics, partial(self.keys, 0, 1))
        state, metrics, keys = (shapes(jax.eval_shape(make)) for make in start)
        (index,), (mask,) = batch_indices(batch_size, batch_size, self.mesh.size)
        image = jax.ShapeDtypeStruct((len(index), self._image_size, self._image_size, 3), np.uint8)
        batch = shapes({"image": image, "label": index, "index": index, "mask": mask}, "data")
        steps: dict[str, tuple[Any, ...]] = {
            "train": (self._train_step, state, metrics, batch, keys),
            "eval": (self._eval_step, state.variables, metrics, batch),
            "predict": (self._predict_step, state.variables, batch["image"]),
        }
        compiled, *arguments = steps[step]
        return compiled.lower(*arguments)

    def replicate(self, tree: Tree) -> Tree:
        """`tree` on every device, in memory of its own: a step may take over the original's."""
        return self._copy(tree)


def _split_keys(seed: int, epoch: int) -> dict[str, jax.Array]:
    """Typed keys of the run (`init`, `dropout`) and of the epoch (`augment`)."""
    init, dropout, augmentation = jax.random.split(jax.random.key(seed), 3)
    keys = {"init": init, "dropout": dropout}
    return keys | {"augment": jax.random.fold_in(augmentation, epoch)}
