"""Shared by the tests: small image folders and settings."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flowers_jax
from configs import common

# What several tests compile is compiled once, however quickly; set before one of them, or a child
# of it, starts jax. LLVM's first level, as in training, compiles faster than its default.
_PROGRAMS = tempfile.TemporaryDirectory()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _PROGRAMS.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")


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


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; tests that need it are skipped where it is not installed."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as opened:
        yield opened


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The pilot network after an epoch on two classes, bright and dark, of 8 images each."""
    root = tmp_path_factory.mktemp("small_run")
    rng = np.random.default_rng(0)
    for k, name in enumerate(["bright", "dark"]):
        (root / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 100, (20, 24, 3)) + 140 * (1 - k)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / name / f"{i}.png")
    config = flowers_jax.default_config()
    config.model, config.image_size, config.batch_size = "pilot_cnn", 16, 8
    config.max_epochs = 1
    config.data.source, config.data.dir = "folder", str(root / "images")
    return flowers_jax.fit(config, root / "run")
