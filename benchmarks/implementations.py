"""What `benchmark.py` times: a training step and an epoch by this package and by others."""

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import clone  # noqa: F401
import jax
import numpy as np
from ml_collections import ConfigDict

from flowers_jax import ops
from flowers_jax.data import batches, decode
from flowers_jax.data.batches import Batch
from flowers_jax.data.folder import ImageFolder
from flowers_jax.data.splits import Files
from flowers_jax.ops import backend
from flowers_jax.process.errors import UserError
from flowers_jax.step import Task
from flowers_jax.study.runner import Run
from flowers_jax.trainer import Trainer, create_task

SIZES = {"googlenet": 224}  # others 150, as in the study


@dataclasses.dataclass(frozen=True)
class Implementation:
    """What is timed; both calls return when the device is done.

    Attributes:
      loaded: when the decoded images were in place, by `time.perf_counter`.
      step: a training step, on the same batch every time.
      epoch: the first steps of a training epoch, as many as given; all of them for None.
    """

    loaded: float
    step: Callable[[], None]
    epoch: Callable[[int | None], None]


def load_config(name: str, model: str) -> ConfigDict:
    """The settings that an implementation trains the model with."""
    changes = {
        "model": model,
        "image_size": SIZES.get(model, 150),
        "aux_weight": 1.0 if model == "googlenet" else None,
        "dtype": "bfloat16" if name == "bfloat16" else "float32",
    }
    return Run("common", changes, Path()).load()


def create(name: str, config: ConfigDict, files: ImageFolder) -> Implementation:
    """The implementation of this name for the model of `config`, which trains on `files`."""
    if name == "keras":
        return keras_implementation(config, files)
    if name.startswith("torch"):
        return torch_implementation(name, config, files)
    return flax_implementation(name, config, files)


def flax_implementation(name: str, config: ConfigDict, files: ImageFolder) -> Implementation:
    """The loop of `train.py`; 'plain' has Flax's own layers and XLA's default options."""
    task = create_task(config, len(files.class_names))
    options: backend.Options | None = None
    if name == "plain":
        task, options = plain(task), {}
    trainer = Trainer(task, config.image_size, compiler_options=options)
    data = batches.load(Files(files, files), config, Path(), trainer.mesh).train
    loaded = time.perf_counter()
    state, metrics, keys = trainer.create_state(0), trainer.zero_metrics(), trainer.keys(0, 1)
    first = next(data.epoch())

    def train(some: Iterable[Batch]) -> None:
        nonlocal state, metrics
        for batch in some:
            state, metrics = trainer.train_step(state, metrics, batch, keys)
        jax.block_until_ready((state, metrics))

    def epoch(num_steps: int | None) -> None:
        order = batches.epoch_order(len(files), config.seed, 1)
        train(itertools.islice(data.epoch(order), num_steps))

    return Implementation(loaded, lambda: train([first]), epoch)


def plain(task: Task) -> Task:
    """The task with Flax's own layers."""
    return dataclasses.replace(task, model=task.model.clone(ops=ops.PLAIN))


def step_flops(config: ConfigDict, num_classes: int) -> float:
    """Operations of a training step with direct convolutions, whatever kernels are timed."""
    trainer = Trainer(plain(create_task(config, num_classes)), config.image_size)
    cost: Any = trainer.lower("train", config.batch_size).cost_analysis()
    return cost["flops"]


def keras_implementation(config: ConfigDict, files: ImageFolder) -> Implementation:
    """Keras' own compiled step of the study's model, and `fit` on a dataset in memory."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    from flowers_jax.keras_models import create_keras_model

    images, loaded = _decode(config, files), time.perf_counter()
    network = create_keras_model(config.model, config.image_size, len(files.class_names))
    num_heads = len(network.outputs)
    loss = keras.losses.SparseCategoricalCrossentropy()
    network.compile("adam", [loss] * num_heads)

    def scale(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        targets = labels if num_heads == 1 else (labels,) * num_heads
        return tf.cast(images, tf.float32) / 127.5 - 1, targets

    size = config.batch_size
    dataset = tf.data.Dataset.from_tensor_slices((images, files.labels))
    dataset = dataset.shuffle(len(files)).batch(size).map(scale).prefetch(2)
    inputs, targets = scale(images[:size], tf.constant(files.labels[:size]))
    return Implementation(
        loaded,
        lambda: network.train_on_batch(inputs, targets),
        lambda num_steps: network.fit(
            dataset if num_steps is None else dataset.take(num_steps), verbose=0
        ),
    )


def torch_implementation(name: str, config: ConfigDict, files: ImageFolder) -> Implementation:
    """PyTorch: channels last, from uint8 images on the device; compiled where there is a GPU."""
    import torch
    import torch_models

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 where there is it, as JAX's default
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    images = torch.from_numpy(_decode(config, files)).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(files.labels.astype(np.int64)).to(device)
    loaded = time.perf_counter()
    network = torch_models.Network(config.model, len(files.class_names)).to(device)

    def scale(index: torch.Tensor) -> torch.Tensor:
        return images[index].float() / 127.5 - 1

    batch = torch.arange(config.batch_size, device=device)
    with torch.no_grad():
        network(scale(batch))  # gives the parameters their shapes
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-7, fused=gpu or None)
    forward = torch.compile(network) if gpu else network
    precision = contextlib.nullcontext()
    if name == "torch_bfloat16":
        precision = torch.autocast(device.type, torch.bfloat16)

    def train(some: Iterable[torch.Tensor]) -> None:
        for index in some:
            optimizer.zero_grad(set_to_none=True)
            with precision:
                outputs = forward(scale(index).contiguous(memory_format=torch.channels_last))
                loss = sum(torch.nn.functional.cross_entropy(x, labels[index]) for x in outputs)
            loss.backward()
            optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    def epoch(num_steps: int | None) -> None:
        order = torch.randperm(len(labels), device=device)
        # The last batch is filled up, as ours is: another shape would be compiled again.
        order = torch.cat([order, order[: -len(order) % config.batch_size]])
        train(order.split(config.batch_size)[:num_steps])

    return Implementation(loaded, lambda: train([batch]), epoch)


def _decode(config: ConfigDict, files: ImageFolder) -> np.ndarray:
    images, bad = decode.decode(files.paths, config.image_size, config.data.resize)
    if bad:
        named = {files.paths[i]: why for i, why in bad.items()}
        raise UserError(f"{decode.describe_bad(named, len(files))}.")
    return images
