"""Shared by the tests: small image folders and settings."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import common

# What several tests compile is compiled once; set before one of them, or a child of it, starts jax.
_PROGRAMS = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _PROGRAMS.name)


@pytest.fixture
def flowers_dir() -> Path:
    """The real images; tests that need them are skipped where FLOWERS_DIR is not set."""
    if "FLOWERS_DIR" not in os.environ:
        pytest.skip("FLOWERS_DIR is not set: it names the folder of the 4317 real images")
    return Path(os.environ["FLOWERS_DIR"])


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Three classes of 20 noisy PNG images, each with a colour of its own: quickly learnt."""
    root = tmp_path / "images"
    rng = np.random.default_rng(0)
    for k, name in enumerate(["blue", "green", "red"]):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 120, (40, 36, 3))
            pixels[..., 2 - k] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def tiny_config(image_folder):
    """A run of seconds: the pilot network at 16 px on `image_folder`."""
    config = common.get_config()
    config.model = "pilot_cnn"
    config.image_size = 16
    config.batch_size = 16
    config.max_epochs = 3
    config.data.source = "folder"
    config.data.dir = str(image_folder)
    return config
