"""What several test modules share."""

import dataclasses
import io

import jax
import numpy as np
from flax import linen as nn
from PIL import Image

from configs import common
from flowers_jax import ops, step, trainer
from flowers_jax.runs import history

KEYS = {"dropout": jax.random.key(1), "augment": jax.random.key(2)}


def make_task(model, image_size, **changes):
    """A task of five classes, and a state that was initialised with the key 0."""
    config = common.get_config()
    config.model = model
    config.input_scaling = "0_1"
    config.update(changes)
    task = trainer.create_task(config, 5)
    # XLA's own kernels compile in a third of the time.
    task = dataclasses.replace(task, model=task.model.clone(ops=ops.PLAIN))
    create = jax.jit(step.create_state, static_argnums=(0, 1))
    return task, create(task, image_size, jax.random.key(0))


def make_batch(n, size, padding=0):
    """`n` random images and `padding` white ones that must not count."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    label = (np.arange(n) % 5).astype(np.int32)
    if padding:
        image = np.concatenate([image, np.full((padding, size, size, 3), 255, np.uint8)])
        label = np.concatenate([label, np.zeros(padding, np.int32)])
    mask = np.arange(n + padding) < n
    return {"image": image, "label": label, "index": np.arange(n + padding), "mask": mask}


def without_dropout(call, arguments, options, context):
    """An interceptor for `nn.intercept_methods`."""
    return arguments[0] if isinstance(context.module, nn.Dropout) else call(*arguments, **options)


def keras_optimizer(name, rate, **arguments):
    """Keras' optimizer of this name, with its defaults."""
    import keras

    optimizers = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "adadelta": keras.optimizers.Adadelta,
        "adagrad": keras.optimizers.Adagrad,
        "sgd": keras.optimizers.SGD,
    }
    return optimizers[name](learning_rate=rate, **arguments)


def without_seconds(workdir):
    """The history of a run, without what no two runs share."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.read(workdir)]


def picture(mode="RGB", size=(24, 24), seed=1):
    """A smooth random picture."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(kind, image=None, **options):
    """A picture as the content of a file of this format."""
    buffer = io.BytesIO()
    (image or picture()).save(buffer, kind, **options)
    return buffer.getvalue()


def make_tree(root, names):
    """Tiny pictures below `root` in files of these names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path.with_suffix(".png"))
        path.with_suffix(".png").rename(path)
