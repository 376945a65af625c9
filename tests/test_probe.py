"""VGG16's ablation: what is measured in a step, and how it is shown."""

import jax
import numpy as np
import pytest

from flowers_jax import settings
from flowers_jax.runs import files
from flowers_jax.study import probe
from flowers_jax.study.runner import Run
from flowers_jax.trainer import Trainer, create_task


def make_config(tmp_path, **changes):
    return Run("vgg16_adam", {"image_size": 32, **changes}, tmp_path).load()


def test_a_variant_is_settings_that_can_be_used(tmp_path):
    config = make_config(tmp_path)
    configs = [probe.variant_config(config, variant) for variant in probe.VARIANTS]
    assert len({c.to_json() for c in configs}) == 12
    last = settings.check(configs[-1])
    assert last.input_scaling == "-1_1"
    assert last.model_args.to_dict() == {"initializer": "he_uniform", "batch_norm": True}
    assert not config.model_args


def test_the_table_and_the_heat_maps():
    values = {
        ("0", "block1_conv1"): 2.0, ("0", "predictions"): 0.5,
        ("10", "block1_conv1"): 0.0, ("10", "predictions"): 0.25,
    }  # fmt: skip
    rows = [
        dict(zip(probe.HEADER, (*probe.VARIANTS[1], step, 1.5, 0.25, layer, v, v), strict=True))
        for (step, layer), v in values.items()
    ]
    drawn = probe.draw(rows, "gradient_norm").axes[1].collections[0]
    # Layers by steps; zero has a colour too.
    assert drawn.get_array().tolist() == [[2.0, 1e-7], [0.5, 0.25]]
    *_, line = probe.table(rows).splitlines()
    assert line == "| 0..255 | glorot | batch norm | 1.500 | 25.0 | 2.0e+00 | 5.0e-01 |"


@pytest.mark.slow
def test_the_probe_measures_gradients_and_activations(tmp_path):
    task = create_task(make_config(tmp_path, input_scaling="0_1"), 5)
    state = Trainer(task, 32).create_state(0)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    batch = {
        "image": np.concatenate([pixels, np.full((1, 32, 32, 3), 255, np.uint8)]),
        "label": np.array([0, 1, 2, 3, 0], np.int32),
        "index": np.arange(5, dtype=np.int32),
        "mask": np.arange(5) < 4,
    }
    norms, variances = jax.jit(lambda s, b: probe.probe(task, s, b))(state, batch)
    assert len(norms) == 16
    assert list(norms) == list(variances)

    images = pixels / np.float32(255)
    logits, captured = task.model.apply(
        state.variables, images, capture_intermediates=True, mutable="intermediates"
    )
    # The classifier's gradient in closed form: (softmax - one-hot) / n, times its input.
    logits = np.asarray(logits)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (softmax - np.eye(5)[:4]) / 4
    inputs = np.maximum(captured["intermediates"]["fc2"]["__call__"][0], 0)
    norm = np.sqrt(((inputs.T @ error) ** 2).sum() + (error.sum(axis=0) ** 2).sum())
    assert norms["predictions"] == pytest.approx(norm, rel=1e-4)

    # The first layer's activations, by a sum over its nine taps.
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(state.params["block1_conv1"]["kernel"])
    first = sum(
        padded[:, i : i + 32, j : j + 32] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    found = [variances[layer] for layer in ("block1_conv1", "predictions")]
    assert found == pytest.approx([first.var(), logits.var()], rel=1e-4)


@pytest.mark.slow
def test_only_what_is_missing_is_measured(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" / "ablation_vgg16_32px_10_steps"
    out.mkdir(parents=True)
    layers = ("block1_conv1", "predictions")
    measured = [v for v in probe.VARIANTS if v != ("0..1", "glorot", "batch norm")]
    rows = (
        [*v, step, 1.5, 0.25, layer, 1, 1] for v in measured for step in (0, 10) for layer in layers
    )
    files.write_csv(out / "layers.csv", probe.HEADER, rows)
    for _ in range(2):
        probe.run(str(image_folder), 32, 10)
    printed = capsys.readouterr().out
    assert printed.count("glorot") == printed.count("0..1, glorot, batch norm: ") == 1
    assert len(files.read_csv(out / "layers.csv")) == 11 * 4 + 2 * 16
    for quantity in probe.QUANTITIES:
        assert (out / f"{quantity}.png").exists()
    assert len((out / "table.md").read_text().splitlines()) == 2 + 12
