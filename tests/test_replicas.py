import os
import signal

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from flowers_jax import progress, replicas, results, settings
from flowers_jax.checkpoints import best_weights
from flowers_jax.errors import Interrupted, UserError
from flowers_jax.train import train_and_evaluate

SEEDS = (0, 1)
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


needs_support = pytest.mark.skipif(not replicas.SUPPORTED, reason="needs jax 0.8 or later")


@pytest.fixture
def config(tiny_config):
    """Dropout, batch normalisation and augmentation; an accuracy that rises and falls.

    The steps are small: where two pixels of a pool's window are equal but for rounding, the
    gradient may go to either, and a large step shows it.
    """
    tiny_config.model = "base_cnn_batchnorm"
    tiny_config.image_size = 40
    tiny_config.optimizer.name = "sgd"
    tiny_config.optimizer.learning_rate = 1e-4
    tiny_config.max_epochs = 4
    tiny_config.early_stopping.monitor = "accuracy"
    tiny_config.early_stopping.patience = 1
    tiny_config.data.augment = ConfigDict(
        {"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": False}
    )
    return tiny_config


def together(config, workdir):
    config = config.copy_and_resolve_references()
    config.num_replicas = len(SEEDS)
    train_and_evaluate(config, workdir)


def histories(folders):
    return [
        np.array([[row[name] for name in METRICS] for row in results.read_history(folder)])
        for folder in folders
    ]


@needs_support
def test_seeds_together_are_the_seeds_alone(config, tmp_path):
    for seed in SEEDS:
        config.seed = seed
        train_and_evaluate(config, tmp_path / f"alone_{seed}")
    config.seed = 0
    together(config, tmp_path / "group")
    folders = [tmp_path / "group" / f"seed_{seed}" for seed in SEEDS]
    alone = histories(tmp_path / f"alone_{seed}" for seed in SEEDS)
    group = histories(folders)
    assert len({len(rows) for rows in alone}) > 1  # one stops before another
    for a, b in zip(alone, group, strict=True):
        assert len(a) == len(b)
        np.testing.assert_allclose(b[:3], a[:3], rtol=1e-4)
    for seed, folder in zip(SEEDS, folders, strict=True):
        expected = results.read_summary(tmp_path / f"alone_{seed}")
        found = results.read_summary(folder)
        for key in ("config", "epochs_run", "best_epoch", "best_val_accuracy", "num_params"):
            assert found[key] == expected[key]
        weights = [best_weights(path)[1] for path in (folder, tmp_path / f"alone_{seed}")]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *weights)


@needs_support
def test_a_group_goes_on_where_it_was_interrupted_and_caches_agree(
    tiny_config, tmp_path, monkeypatch
):
    config = tiny_config
    config.data.cache = "device"
    together(config, tmp_path / "device")
    config.data.cache = "host"
    advance, calls = progress.EpochBar.advance, []

    def counted(bar, num_steps, sums):
        advance(bar, num_steps, sums)
        calls.append(num_steps)
        if sum(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="epoch 2, step 2"):
        patch.setattr(progress.EpochBar, "advance", counted)
        together(config, tmp_path / "cut")
    together(config, tmp_path / "cut")
    for seed in SEEDS:
        folders = [tmp_path / name / f"seed_{seed}" for name in ("device", "cut")]
        np.testing.assert_allclose(*histories(folders), rtol=1e-5)
    with pytest.raises(UserError, match=r"holds several runs; choose one of them: .*/cut/seed_0"):
        best_weights(tmp_path / "cut")


@needs_support
def test_seeds_that_were_trained_alone_are_not_written_over(tiny_config, tmp_path):
    results.prepare(tmp_path / "run" / "seed_1")
    results.write_history(tmp_path / "run" / "seed_1", [], ())
    with pytest.raises(UserError, match="holds seeds that were trained alone"):
        together(tiny_config, tmp_path / "run")


def test_a_jax_that_cannot_is_told_before_any_data_is_read(tiny_config, monkeypatch):
    monkeypatch.setattr(replicas, "SUPPORTED", False)
    settings.check(tiny_config)
    tiny_config.num_replicas = 2
    with pytest.raises(UserError, match=r"num_replicas=2 needs jax 0\.8, this is \d"):
        settings.check(tiny_config)
