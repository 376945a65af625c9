"""The ablation scripts: what they compare, and one of them run as a user runs it."""

import ast
import csv
import importlib
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flowers_jax import models, results, settings

SCRIPTS = Path("scripts").absolute()
NAMES = ("optimizers", "improvements", "loss", "auxiliary", "leak")


@pytest.fixture
def script(monkeypatch):
    """Imports a script as Python does when it is run."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return lambda name: importlib.import_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_a_run_that_can_be_started(script, name, tmp_path):
    runner, ablation = script("runner"), script(f"ablation_{name}")
    for variant, (config, changes) in ablation.VARIANTS.items():
        settings.check(runner.Run(config, changes, tmp_path / variant).load())


def test_a_variant_alone_changes_one_thing(script, tmp_path):
    # From the layers: kernels, biases, and twice the channels for batch normalisation.
    conv = {3: 896 + 18_496 + 73_856, 5: 896 + 18_496 + 204_928}
    expected = {
        "base": conv[3] + 17 * 17 * 128 * 128 + 128 + 645,
        "alone_conv5x5": conv[5] + 16 * 16 * 128 * 128 + 128 + 645,
        "alone_gap": conv[3] + 128 * 128 + 128 + 645,
        "alone_batchnorm": conv[3] + 448 + 16 * 16 * 128 * 128 + 128 + 645,
    }
    runner, ablation = script("runner"), script("ablation_improvements")
    base = runner.Run("improvement_0_base", {}, tmp_path).load()
    for name, count in expected.items():
        config = runner.Run(*ablation.VARIANTS[name], tmp_path).load()
        model = models.create_model(config.model)
        images = jnp.zeros((1, 150, 150, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
        config.model = base.model
        assert config.to_json() == base.to_json()


def test_an_added_variant_changes_one_thing_of_the_one_before(script, tmp_path):
    runner, ablation = script("runner"), script("ablation_improvements")
    conv = 896 + 18_496 + 204_928  # with the 5x5 kernel
    expected = {
        "base": ("", 896 + 18_496 + 73_856 + 17 * 17 * 128 * 128 + 128 + 645),
        "alone_conv5x5": ("model", conv + 16 * 16 * 128 * 128 + 128 + 645),
        "added_2_gap": ("model", conv + 128 * 128 + 128 + 645),
        "added_3_scaling": ("input_scaling", conv + 128 * 128 + 128 + 645),
        "added_4_batchnorm": ("model", conv + 448 + 128 * 128 + 128 + 645),
        "added_5_augmentation": ("data.augment", conv + 448 + 128 * 128 + 128 + 645),
    }
    before = None
    for name, (change, count) in expected.items():
        config = runner.Run(*ablation.VARIANTS[name], tmp_path).load()
        if before is not None:
            old, new = results.json_config(before), results.json_config(config)
            assert [text.split()[0] for text in results.differences(old, new)] == [change]
        model = models.create_model(config.model)
        images = jnp.zeros((1, 150, 150, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
        before = config


def test_the_losses_at_the_studys_point(script):
    found = script("ablation_loss").values_and_slopes()
    # (y - y')^2 and -log(1 - y') at y = 0, y' = 0.9.
    assert found["squared error"] == pytest.approx((0.81, 1.8))
    assert found["cross-entropy"] == pytest.approx((math.log(10), 10), rel=1e-5)


def test_the_learning_rates_are_drawn_with_their_intervals(script):
    optimizers = script("ablation_optimizers")
    columns = ("restored_val_accuracy", "interval_low", "interval_high")
    rows = {
        variant: dict(zip(columns, (f"{60 + i}", f"{57 + i}", f"{64 + i}"), strict=True))
        for i, variant in enumerate(optimizers.VARIANTS)
    }
    rows["adadelta_0.1"] = dict.fromkeys(columns, "")  # not finished
    [axes] = optimizers.draw_rates(rows).axes
    adam, adadelta, *_ = axes.containers
    assert adam.lines[0].get_xydata().tolist() == [
        [0.0001, 60], [0.0003, 61], [0.001, 62], [0.003, 63]
    ]  # fmt: skip
    first_bar = adam.lines[2][0].get_segments()[0]
    assert first_bar.tolist() == [[0.0001, 57], [0.0001, 64]]
    assert adadelta.lines[0].get_xdata().tolist() == [0.001, 0.01, 1.0]


def test_leaked_images_are_added_to_the_training_split(script, flowers_dir, tmp_path):
    from flowers_jax.data import folder

    runner, index = script("runner"), folder.scan(flowers_dir)
    for name, (config, changes) in script("ablation_leak").VARIANTS.items():
        data = runner.Run(config, changes, tmp_path / name).load().data
        train, validation = folder.split(index, data)
        assert len(set(train.paths) & set(validation.paths)) == changes["data.leaked"]
        assert len(train) == 3917 + changes["data.leaked"]


def test_the_heads_are_compared_by_their_best_epochs(script, tmp_path):
    auxiliary = script("ablation_auxiliary")
    # Accuracies of main, aux1 and aux2 in two epochs, of two seeds; of the other weights none yet.
    seeds = [[(0.5, 0.3, 0.4), (0.6, 0.2, 0.5)], [(0.7, 0.4, 0.2), (0.1, 0.3, 0.3)]]
    for seed, epochs in enumerate(seeds):
        folder = tmp_path / "weight_0.3" / f"seed_{seed}"
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text("{}")
        columns = [f"val_{head}_accuracy" for head in ("main", "aux1", "aux2")]
        rows = [",".join(["epoch", *columns])]
        rows += [",".join(map(str, (i, *row))) for i, row in enumerate(epochs, start=1)]
        (folder / "history.csv").write_text("\n".join(rows) + "\n")
    auxiliary.heads(tmp_path)
    *_, line = (tmp_path / "heads.md").read_text().splitlines()
    assert line == "| weight_0.3 | 65.00 | 35.00 | 40.00 |"


@pytest.mark.slow
def test_an_ablation_ends_in_a_table_and_figures_and_is_not_run_twice(image_folder, tmp_path):
    command = [sys.executable, SCRIPTS / "ablation_loss.py", "--epochs=1"]
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


# Two scripts that define the same flags cannot be imported into one process.
PROBE = """
import sys
sys.path[:0] = [sys.argv[1], "."]
import jax, numpy as np
import ablation_vgg16, runner
from flowers_jax import train
config = runner.Run("vgg16_adam", {"image_size": 32, "input_scaling": "0_1"}, None).load()
task = train.create_task(config, 5)
state = train.create_state(task, 32, jax.random.key(0))
batch = {
    "image": np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8),
    "label": np.array([0, 1, 2, 3], np.int32),
    "mask": np.ones(4, bool),
}
norms, variances = jax.jit(lambda s, b: ablation_vgg16.probe(task, s, b))(state, batch)
logits = task.model.apply(state.variables, batch["image"] / np.float32(255))
kernel = state.params["block1_conv1"]["kernel"]
values = {("0", "conv"): 2.0, ("0", "fc"): 0.5, ("10", "conv"): 0.0, ("10", "fc"): 0.25}
rows = [
    dict(zip(ablation_vgg16.HEADER, (*ablation_vgg16.VARIANTS[1], step, 1, 1, layer, value)))
    for (step, layer), value in values.items()
]
drawn = ablation_vgg16.draw(rows, "gradient_norm").axes[1].collections[0]
print({
    "drawn": drawn.get_array().tolist(),
    "layers": list(norms),
    "bias_norm": float(norms["predictions"]),
    "variances": [float(variances[k]) for k in ("block1_conv1", "predictions")],
    "logits": np.asarray(logits).tolist(),
    "fc2": np.asarray(task.model.apply(
        state.variables, batch["image"] / np.float32(255), capture_intermediates=True,
        mutable="intermediates")[1]["intermediates"]["fc2"]["__call__"][0]).tolist(),
    "kernel": np.asarray(kernel).tolist(),
})
"""


@pytest.mark.slow
def test_the_vgg16_probe_measures_gradients_and_activations():
    done = subprocess.run(
        [sys.executable, "-c", PROBE, SCRIPTS], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout)
    assert len(found["layers"]) == 16
    assert found["drawn"] == [[2.0, 1e-7], [0.5, 0.25]]  # layers by steps; zero has a colour too

    # The classifier's gradient in closed form: (softmax - one-hot) / n, times its input.
    logits = np.array(found["logits"])
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (softmax - np.eye(5)[:4]) / 4
    inputs = np.maximum(np.array(found["fc2"]), 0)
    norm = math.sqrt(((inputs.T @ error) ** 2).sum() + (error.sum(axis=0) ** 2).sum())
    assert found["bias_norm"] == pytest.approx(norm, rel=1e-4)

    # The first layer's activations, by a sum over its nine taps.
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8) / 255
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.array(found["kernel"])
    first = sum(
        padded[:, i : i + 32, j : j + 32] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    assert found["variances"] == pytest.approx([first.var(), logits.var()], rel=1e-4)
