"""Time to augment a batch: this package's warp beside Keras' `ImageDataGenerator`, alternating.

python benchmarks/augmentation.py
"""

import statistics
import time
from collections.abc import Callable, Sequence

import clone  # noqa: F401
import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from flowers_jax.data import augment
from flowers_jax.ops import backend

BATCH, SIZE, REPEATS = 32, 150, 25
STUDY = augment.transforms(
    {"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": True}
)


def ours(images: np.ndarray) -> Callable[[], None]:
    """Augments the batch with JAX."""
    warp = jax.jit(lambda x, key: augment.augment(x, jnp.arange(BATCH), key, STUDY))
    keys = iter(jax.random.split(jax.random.key(0), REPEATS + 1))
    return lambda: jax.block_until_ready(warp(images, next(keys)))


def keras(images: np.ndarray) -> Callable[[], None]:
    """Augments the batch with the generator that the study used."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=15, zoom_range=0.1, horizontal_flip=True, vertical_flip=True
    )
    flow = generator.flow(images.astype(np.float32), batch_size=BATCH, shuffle=False)
    return lambda: next(flow)


def main(_arguments: Sequence[str]) -> None:
    """Prints the median of each and their ratio."""
    backend.reuse_memory()
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    implementations = {"flowers_jax": ours(images), "ImageDataGenerator": keras(images)}
    seconds: dict[str, list[float]] = {name: [] for name in implementations}
    for call in implementations.values():
        call()
    for _ in range(REPEATS):
        for name, call in implementations.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:20} {1e3 * median:7.1f} ms per batch of {BATCH} at {SIZE} px")
    print(f"ratio {medians['flowers_jax'] / medians['ImageDataGenerator']:.3f}")


if __name__ == "__main__":
    app.run(main)
