"""The ablations: what they compare, and one of them run as a user runs it."""

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from PIL import Image

from flowers_jax import models, settings
from flowers_jax.data import folder, splits
from flowers_jax.runs import run_folder
from flowers_jax.study import figures, sweeps
from flowers_jax.study.runner import Run

SCRIPT = Path("scripts/ablation_loss.py").absolute()


def load(sweep, variant):
    config, changes = sweep.variants[variant]
    return Run(config, changes, Path("unused")).load()


@pytest.mark.parametrize("sweep", sweeps.SWEEPS, ids=lambda sweep: sweep.name)
def test_every_variant_is_a_run_that_can_be_started(sweep):
    for variant in sweep.variants:
        settings.check(load(sweep, variant))
    assert Path(f"scripts/ablation_{sweep.name}.py").is_file()


def num_params(config):
    model = models.create_model(config.model, **config.model_args)
    variables = models.shapes(model, config.image_size).variables
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def differing_keys(old, new):
    old, new = run_folder.json_config(old), run_folder.json_config(new)
    return [text.split()[0] for text in run_folder.differences(old, new)]


def test_a_variant_alone_changes_one_thing():
    # From the layers: kernels, biases, and twice the channels for batch normalisation.
    conv = {3: 896 + 18_496 + 73_856, 5: 896 + 18_496 + 204_928}
    expected = {
        "base": ([], conv[3] + 17 * 17 * 128 * 128 + 128 + 645),
        "alone_conv5x5": (["last_kernel"], conv[5] + 16 * 16 * 128 * 128 + 128 + 645),
        "alone_gap": (["global_pool"], conv[3] + 128 * 128 + 128 + 645),
        "alone_batchnorm": (["batch_norm"], conv[3] + 448 + 16 * 16 * 128 * 128 + 128 + 645),
    }
    base = load(sweeps.IMPROVEMENTS, "base")
    for name, (arguments, count) in expected.items():
        config = load(sweeps.IMPROVEMENTS, name)
        assert num_params(config) == count
        assert differing_keys(base, config) == [f"model_args.{name}" for name in arguments]


def test_an_added_variant_changes_one_thing_of_the_one_before():
    conv = 896 + 18_496 + 204_928  # with the 5x5 kernel
    expected = {
        "base": ("", 896 + 18_496 + 73_856 + 17 * 17 * 128 * 128 + 128 + 645),
        "alone_conv5x5": ("model_args.last_kernel", conv + 16 * 16 * 128 * 128 + 128 + 645),
        "added_2_gap": ("model_args.global_pool", conv + 128 * 128 + 128 + 645),
        "added_3_scaling": ("input_scaling", conv + 128 * 128 + 128 + 645),
        "added_4_batchnorm": ("model_args.batch_norm", conv + 448 + 128 * 128 + 128 + 645),
        "added_5_augmentation": ("data.augment", conv + 448 + 128 * 128 + 128 + 645),
    }
    before = None
    for name, (change, count) in expected.items():
        config = load(sweeps.IMPROVEMENTS, name)
        if before is not None:
            assert differing_keys(before, config) == [change]
        assert num_params(config) == count
        before = config


def test_the_losses_at_the_studys_point(tmp_path):
    # (y - y')^2 and -log(1 - y') at y = 0, y' = 0.9.
    found = {name: (f(0.9), slope(0.9)) for name, (f, slope) in figures.LOSSES.items()}
    assert found["squared error"] == pytest.approx((0.81, 1.8))
    assert found["cross-entropy"] == pytest.approx((math.log(10), 10), rel=1e-5)
    for name, (loss, slope) in figures.LOSSES.items():
        assert found[name][1] == pytest.approx((loss(0.9 + 1e-6) - loss(0.9 - 1e-6)) / 2e-6), slope
    figures.write_losses(tmp_path)
    assert "| squared error | 0.81 | 1.8 |" in (tmp_path / "losses.md").read_text()


def test_the_learning_rates_are_drawn_with_their_intervals():
    columns = ("restored_val_accuracy", "interval_low", "interval_high")
    rows = {
        variant: dict(zip(columns, (f"{60 + i}", f"{57 + i}", f"{64 + i}"), strict=True))
        for i, variant in enumerate(sweeps.OPTIMIZERS.variants)
    }
    rows["adadelta_0.1"] = dict.fromkeys(columns, "")  # not finished
    [axes] = figures.draw_rates(rows).axes
    adam, adadelta, *_ = axes.containers
    assert adam.lines[0].get_xydata().tolist() == [
        [0.0001, 60], [0.0003, 61], [0.001, 62], [0.003, 63]
    ]  # fmt: skip
    first_bar = adam.lines[2][0].get_segments()[0]
    assert first_bar.tolist() == [[0.0001, 57], [0.0001, 64]]
    assert adadelta.lines[0].get_xdata().tolist() == [0.001, 0.01, 1.0]


def test_leaked_images_are_added_to_the_training_split(flowers_dir):
    index = folder.scan(flowers_dir)
    for name, (_, changes) in sweeps.LEAK.variants.items():
        train, validation, _ = splits.split(index, load(sweeps.LEAK, name).data)
        assert len(set(train.paths) & set(validation.paths)) == changes["data.leaked"]
        assert len(train) == 3917 + changes["data.leaked"]


def test_the_heads_are_compared_by_their_best_epochs(tmp_path):
    # Accuracies of main, aux1 and aux2 in two epochs, of two seeds; of the other weights none yet.
    seeds = [[(0.5, 0.3, 0.4), (0.6, 0.2, 0.5)], [(0.7, 0.4, 0.2), (0.1, 0.3, 0.3)]]
    for seed, epochs in enumerate(seeds):
        workdir = tmp_path / "weight_0.3" / f"seed_{seed}"
        workdir.mkdir(parents=True)
        (workdir / "summary.json").write_text("{}")
        columns = [f"val_{head}_accuracy" for head in ("main", "aux1", "aux2")]
        rows = [",".join(["epoch", *columns])]
        rows += [",".join(map(str, (i, *row))) for i, row in enumerate(epochs, start=1)]
        (workdir / "history.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "weight_1.0").mkdir()
    figures.write_heads(tmp_path)
    *_, line = (tmp_path / "heads.md").read_text().splitlines()
    assert line == "| weight_0.3 | 65.00 | 35.00 | 40.00 |"


@pytest.mark.slow
def test_an_ablation_ends_in_a_table_and_figures_and_is_not_run_twice(image_folder, tmp_path):
    command = [sys.executable, SCRIPT, "--epochs=1"]
    command.append(f"--data.dir={image_folder}")

    def run():
        environment = {**os.environ, "PYTHONPATH": ""}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
        )

    first, second = run(), run()
    assert first.returncode == 0, first.stderr
    assert "epoch 1/1" in first.stdout
    assert "epoch 1/1" not in second.stdout
    folder = tmp_path / "runs" / "ablation_loss_1_epochs"
    with open(folder / "table.csv", newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"cross_entropy", "squared_error"}
    assert rows["squared_error"]["state"] == "shortened to 1 of 150 epochs"
    assert "0.81 | 1.8" in (folder / "losses.md").read_text()
    for name in ("ablation.png", "losses.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 400
