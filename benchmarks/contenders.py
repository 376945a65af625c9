"""What `scripts/benchmark.py` times: a training step and an epoch by this package and by others."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import runner

from flowers_jax import cpu
from flowers_jax.data import feed, pipeline

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is timed; both return when the device is done.

    Attributes:
      step: a training step on one and the same batch.
      epoch: so many first steps of a training epoch.
      flops: of a step, where they are known.
    """

    step: Callable[[], None]
    epoch: Callable[[int], None]
    flops: float | None = None


def flax_contender(name: str, model: str, split: pipeline.Split) -> Contender:
    """This package's step and feed; as 'plain' without what makes them fast on CPU."""
    import jax
    from flax import linen as nn
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from flowers_jax import train
    from flowers_jax.models import convolution, pooling

    options = {}
    if name == "plain":
        pooling.max_pool = nn.max_pool
        convolution.conv_general_dilated = jax.lax.conv_general_dilated
    else:
        options = cpu.compiler_options()
    changes = {"model": model, "dtype": "bfloat16" if name == "bfloat16" else "float32"}
    changes["aux_weight"] = 1.0 if model == "googlenet" else None
    config = runner.Run("common", changes, Path()).load()
    size = split.images.shape[1]

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    kind = feed.HostFeed
    if feed.choose_cache(len(split.files), size) == "device":
        kind = feed.DeviceFeed
        padding = np.zeros((-len(split.images) % mesh.size, *split.images.shape[1:]), np.uint8)
        spread = NamedSharding(mesh, PartitionSpec("data"))
        images = jax.device_put(np.concatenate([split.images, padding]), spread)
        split = dataclasses.replace(split, images=images)
    batches = kind(split, BATCH, mesh)
    batch = jax.device_put(next(batches.batches()), NamedSharding(mesh, PartitionSpec("data")))

    task = train.create_task(config, len(split.files.class_names))
    create = functools.partial(train.create_state, task, size)
    jit = functools.partial(jax.jit, out_shardings=replicated)
    state = jit(create)(jax.random.key(0))
    sums = jit(functools.partial(train.zero_sums, task.model))()
    keys = jax.device_put({"dropout": jax.random.key(0), "augment": jax.random.key(0)}, replicated)
    carry = (state, sums)

    jit = functools.partial(jit, donate_argnums=0, compiler_options=options)
    take_step = jit(lambda carry, batch, keys: train.train_step(task, *carry, batch, keys))
    take_steps = jit(
        batches.loop(lambda carry, batch, keys: train.train_step(task, *carry, batch, keys))
    )

    def step() -> None:
        nonlocal carry
        carry = jax.block_until_ready(take_step(carry, batch, keys))

    def epoch(num_steps: int) -> None:
        nonlocal carry
        done = 0
        for num, some in batches.epoch(pipeline.epoch_order(len(split.files), 0, 1)):
            carry = take_steps(carry, some, keys)
            done += num
            if done >= num_steps:
                break
        jax.block_until_ready(carry)

    with jax.default_matmul_precision("highest"):  # the operations of direct convolutions
        cost = take_step.lower(carry, batch, keys).cost_analysis()
    return Contender(step, epoch, cost["flops"])


def keras_contender(model: str, split: pipeline.Split) -> Contender:
    """Keras' own compiled step of the study's model, and `fit` on a dataset in memory."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    from flowers_jax.keras_models import create_keras_model

    network = create_keras_model(
        model, split.images.shape[1], num_classes=len(split.files.class_names)
    )
    num_heads = len(network.outputs)
    loss = keras.losses.SparseCategoricalCrossentropy()
    network.compile("adam", [loss] * num_heads)

    def scale(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
        targets = labels if num_heads == 1 else (labels,) * num_heads
        return tf.cast(images, tf.float32) / 127.5 - 1, targets

    dataset = tf.data.Dataset.from_tensor_slices((split.images, split.files.labels))
    dataset = dataset.shuffle(len(split.files)).batch(BATCH).map(scale).prefetch(2)
    inputs, targets = scale(split.images[:BATCH], tf.constant(split.files.labels[:BATCH]))
    return Contender(
        lambda: network.train_on_batch(inputs, targets),
        lambda num_steps: network.fit(dataset.take(num_steps), verbose=0),
    )


def torch_contender(name: str, model: str, split: pipeline.Split) -> Contender:
    """PyTorch: channels last, from uint8 images in memory; compiled where there is a GPU."""
    import torch
    import torch_models

    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(split.files.labels.astype(np.int64)).to(device)
    network = torch_models.Network(model, len(split.files.class_names)).to(device)

    def scale(index: torch.Tensor) -> torch.Tensor:
        return images[index].float() / 127.5 - 1

    batch = torch.arange(BATCH, device=device)
    with torch.no_grad():
        network(scale(batch))  # gives the parameters their shapes
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), eps=1e-7, fused=gpu or None)
    forward = torch.compile(network) if gpu else network

    def take_step(index: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        precision = contextlib.nullcontext()
        if name == "torch_bfloat16":
            precision = torch.autocast(device.type, torch.bfloat16)
        with precision:
            outputs = forward(scale(index).contiguous(memory_format=torch.channels_last))
            loss = sum(torch.nn.functional.cross_entropy(x, labels[index]) for x in outputs)
        loss.backward()
        optimizer.step()

    def finish() -> None:
        if gpu:
            torch.cuda.synchronize()

    def step() -> None:
        take_step(batch)
        finish()

    def epoch(num_steps: int) -> None:
        for index in torch.randperm(len(labels), device=device).split(BATCH)[:num_steps]:
            take_step(index)
        finish()

    return Contender(step, epoch)
