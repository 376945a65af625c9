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

SEEDS = (3, 4)
METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def together(config, workdir):
    config = config.copy_and_resolve_references()
    config.num_replicas = len(SEEDS)
    train_and_evaluate(config, workdir)


def histories(folders):
    return [
        np.array([[row[name] for name in METRICS] for row in results.read_history(folder)])
        for folder in folders
    ]


def alone_and_together(config, tmp_path):
    """The histories of the seeds, trained alone and as a group, and the folders of both."""
    for seed in SEEDS:
        config.seed = seed
        train_and_evaluate(config, tmp_path / f"alone_{seed}")
    config.seed = SEEDS[0]
    together(config, tmp_path / "group")
    alone = [tmp_path / f"alone_{seed}" for seed in SEEDS]
    group = [tmp_path / "group" / f"seed_{seed}" for seed in SEEDS]
    return histories(alone), histories(group), zip(alone, group, strict=True)


@pytest.fixture
def config(tiny_config):
    """Dropout, batch normalisation and augmentation."""
    tiny_config.model, tiny_config.image_size = "base_cnn_batchnorm", 40
    tiny_config.max_epochs, tiny_config.early_stopping.patience = 4, 1
    tiny_config.optimizer.name = "sgd"
    tiny_config.data.augment = ConfigDict(
        {"rotation_degrees": 15.0, "zoom": 0.1, "horizontal_flip": True, "vertical_flip": False}
    )
    return tiny_config


def test_seeds_together_are_the_seeds_alone(config, tmp_path):
    config.optimizer.learning_rate = 0.01
    alone, group, folders = alone_and_together(config, tmp_path)
    assert len({len(rows) for rows in alone}) > 1  # one stops before another
    for a, b in zip(alone, group, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5)
    for one, other in folders:
        expected, found = results.read_summary(one), results.read_summary(other)
        for key in ("config", "epochs_run", "best_epoch", "best_val_accuracy", "num_params"):
            assert found[key] == expected[key]
        weights = [best_weights(path)[1] for path in (other, one)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *weights)


@pytest.mark.skipif(not replicas.CAN_MAP, reason="needs jax 0.8 or later")
def test_mapped_as_on_an_accelerator_the_seeds_are_the_same(config, tmp_path, monkeypatch):
    # Small steps: mapped over their kernels convolutions round otherwise, and where two pixels of a
    # pool's window are equal but for that, the gradient may go to either.
    config.optimizer.learning_rate = 1e-4
    config.early_stopping.monitor = "accuracy"
    monkeypatch.setattr(replicas, "are_mapped", lambda: True)
    alone, group, _ = alone_and_together(config, tmp_path)
    assert len({len(rows) for rows in alone}) > 1
    for a, b in zip(alone, group, strict=True):
        np.testing.assert_allclose(b[:3], a[:3], rtol=1e-4)


def test_a_group_goes_on_where_it_was_interrupted_and_caches_agree(
    tiny_config, tmp_path, monkeypatch
):
    config = tiny_config
    config.seed = SEEDS[0]
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
    with pytest.raises(UserError, match=r"holds several runs; choose one of them: .*/cut/seed_3"):
        best_weights(tmp_path / "cut")


def test_seeds_that_were_trained_alone_are_not_written_over(tiny_config, tmp_path):
    results.prepare(tmp_path / "run" / "seed_1")
    results.write_history(tmp_path / "run" / "seed_1", [], ())
    with pytest.raises(UserError, match="holds seeds that were trained alone"):
        together(tiny_config, tmp_path / "run")


def test_a_jax_that_cannot_is_told_before_any_data_is_read(tiny_config, monkeypatch):
    monkeypatch.setattr(replicas, "CAN_MAP", False)
    tiny_config.num_replicas = 2
    settings.check(tiny_config)
    monkeypatch.setattr(replicas, "are_mapped", lambda: True)
    with pytest.raises(UserError, match=r"needs jax 0\.8 on GPU and TPU, this is \d"):
        settings.check(tiny_config)
