"""Why VGG16 did not learn: input scaling, initialisation and batch normalisation, 200 steps each.

python scripts/ablation_vgg16.py

Adam with the study's settings. Every tenth step the norm of the loss's gradient and the variance of
the activations are taken, per layer. They go to layers.csv in runs/ablation_vgg16, with table.md,
gradient_norm.png and activation_variance.png; variants that layers.csv holds already are not run
again.
"""

import csv
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import runner
from absl import flags
from flax import linen as nn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from flowers_jax import command, cpu, results, train
from flowers_jax.data import augment, folder, pipeline, sources
from flowers_jax.errors import UserError
from flowers_jax.models.vgg16 import VGG16

_DATA_DIR = flags.DEFINE_string("data.dir", None, "The image folder, as --config.data.dir.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 150, "Pixels; less is a shortened version.")
EVERY = 10
_STEPS = flags.DEFINE_integer(
    "steps", 200, "Steps of each variant; less is a shortened version.", lower_bound=EVERY
)
SCALINGS = {"0..255": "none", "0..1": "0_1", "-1..1": "-1_1"}
INITIALISERS = {"glorot": nn.initializers.glorot_uniform(), "he": nn.initializers.he_uniform()}
NORMS = {"plain": False, "batch norm": True}
VARIANTS = list(itertools.product(SCALINGS, INITIALISERS, NORMS))
QUANTITIES = ("gradient_norm", "activation_variance")
HEADER = ["scaling", "initialiser", "norm", "step", "loss", "accuracy", "layer", *QUANTITIES]
Row = dict[str, str]


def main(arguments: Sequence[str]) -> None:
    """Runs the variants that are missing; writes the table and the figure."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}.")
    cpu.reuse_memory()
    out = Path("runs/ablation_vgg16")
    if (_IMAGE_SIZE.value, _STEPS.value) != (150, 200):
        out = out.with_name(f"ablation_vgg16_{_IMAGE_SIZE.value}px_{_STEPS.value}_steps")
    results.prepare(out)
    changes = {"image_size": _IMAGE_SIZE.value, "data.dir": _DATA_DIR.value}
    config = runner.Run("vgg16_adam", changes, out).load()
    results.finished_summary(out, results.json_config(config))  # refuses other settings
    results.write_json(out / "config.json", results.json_config(config))
    source = sources.resolve(config.data, out)
    files = folder.split(folder.scan(source.root), config.data)
    split, _, _ = pipeline.load(*files, config.image_size, config.data.resize, "error")
    rows = _read(out / "layers.csv")
    for scaling, initialiser, norm in VARIANTS:
        if (scaling, initialiser, norm) in map(_variant, rows):
            continue
        config.input_scaling = SCALINGS[scaling]
        model = VGG16(
            num_classes=len(split.files.class_names),
            kernel_init=INITIALISERS[initialiser],
            batch_norm=NORMS[norm],
        )
        task = dataclasses.replace(train.create_task(config, model.num_classes), model=model)
        for values in watch(task, split, config.image_size, config.batch_size, _STEPS.value):
            rows.append(
                {"scaling": scaling, "initialiser": initialiser, "norm": norm}
                | {key: str(value) for key, value in values.items()}
            )
        results.write_csv(out / "layers.csv", HEADER, ([r[c] for c in HEADER] for r in rows))
        print(f"{scaling}, {initialiser}, {norm}: {_last_loss(rows):.4f}", flush=True)
    results.write_text(out / "table.md", table(rows))
    for quantity in QUANTITIES:
        results.write_figure(out / f"{quantity}.png", draw(rows, quantity))
    print(f"table and figures are in {out}")


def probe(
    task: train.Task, state: train.TrainState, batch: train.Batch
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Per layer the norm of the gradient and the variance of the activations, before the ReLU.

    Args:
      task: static.
      state: whose weights are looked at.
      batch: see `pipeline.Batch`; normalised by its own statistics, as in training.

    Returns:
      The norms of the gradient of the mean loss (kernel and bias together) and the variances, by
      the names of the convolutions and dense layers.
    """
    images = augment.scale(batch["image"], task.input_scaling)

    def loss(params: train.Variables) -> tuple[jax.Array, train.Variables]:
        logits, captured = task.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mask=batch["mask"],
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Conv | nn.Dense),
        )
        return task.loss(logits, batch["label"]).mean(), captured["intermediates"]

    gradients, captured = jax.grad(loss, has_aux=True)(state.params)
    norms = {
        layer: jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in weights.values()))
        for layer, weights in gradients.items()
        if "kernel" in weights
    }
    flat = flax.traverse_util.flatten_dict(captured)
    variances = {path[0]: jnp.var(value[0]) for path, value in flat.items()}
    return norms, {layer: variances[layer] for layer in norms}


def watch(
    task: train.Task, split: pipeline.Split, image_size: int, batch_size: int, num_steps: int
) -> list[dict[str, float | str]]:
    """Trains and probes: a row per probed step and layer, with the loss since the last probe."""
    jit = functools.partial(jax.jit, compiler_options=cpu.compiler_options())
    keys = {name: jax.random.key(0) for name in ("dropout", "augment")}
    create = functools.partial(train.create_state, task, image_size)
    state = jax.jit(create)(jax.random.key(0))
    step = jit(functools.partial(train.train_step, task), donate_argnums=(0, 1))
    look = jit(functools.partial(probe, task))
    rows, sums = [], train.zero_sums(task.model)
    epochs = (
        pipeline.batches(split, batch_size, pipeline.epoch_order(len(split.files), 0, epoch))
        for epoch in itertools.count(1)
    )
    batches = itertools.islice(itertools.chain.from_iterable(epochs), num_steps + 1)
    for i, batch in enumerate(batches):
        if i % EVERY == 0:
            norms, variances = jax.device_get(look(state, batch))
            means = train.means(sums) if i else {"loss": np.nan, "accuracy": np.nan}
            sums = train.zero_sums(task.model)
            for layer in norms:
                rows.append(
                    {
                        "step": i,
                        "layer": layer,
                        "gradient_norm": norms[layer],
                        "activation_variance": variances[layer],
                        **means,
                    }
                )
        state, sums = step(state, sums, batch, keys)
    return rows


def table(rows: Sequence[Row]) -> str:
    """For each variant the loss and accuracy of the last ten steps, and the signal at the start."""
    lines = []
    for variant in VARIANTS:
        mine = [r for r in rows if _variant(r) == variant]
        if not mine:
            continue
        last = mine[-1]
        start = {r["layer"]: r for r in mine if r["step"] == "0"}
        lines.append(
            [
                *variant,
                f"{float(last['loss']):.3f}",
                f"{100 * float(last['accuracy']):.1f}",
                f"{float(start['block1_conv1']['gradient_norm']):.1e}",
                f"{float(start['predictions']['activation_variance']):.1e}",
            ]
        )
    header = ["scaling", "initialiser", "norm", "loss of the last ten steps", "accuracy"]
    header += ["first layer's gradient at step 0", "variance of the logits at step 0"]
    return runner.markdown(header, lines)


def draw(rows: Sequence[Row], quantity: str) -> Figure:
    """One of `QUANTITIES` over the steps and the layers, a panel for each variant.

    What is below 1e-7, zero above all, has the colour of 1e-7.
    """
    layers = list(dict.fromkeys(r["layer"] for r in rows))
    steps = sorted({int(r["step"]) for r in rows})
    finite = [float(r[quantity]) for r in rows if np.isfinite(float(r[quantity]))]
    norm = LogNorm(1e-7, max(1e-6, *finite))
    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(f"VGG16: {quantity.replace('_', ' ')} over the steps")
    for axes, variant in zip(figure.subplots(3, 4, sharex=True).flat, VARIANTS, strict=True):
        values = np.full((len(layers), len(steps)), np.nan)
        for r in rows:
            if _variant(r) == variant:
                place = layers.index(r["layer"]), steps.index(int(r["step"]))
                values[place] = max(float(r[quantity]), norm.vmin)
        mesh = axes.pcolormesh(steps, range(len(layers)), values, norm=norm, shading="nearest")
        axes.set_title(", ".join(variant), fontsize=10)
        first_column = axes.get_subplotspec().is_first_col()
        axes.set_yticks(range(len(layers)), layers if first_column else [], fontsize=7)
        axes.invert_yaxis()
    figure.supxlabel("step")
    figure.colorbar(mesh, ax=figure.axes, shrink=0.6)
    return figure


def _variant(row: Row) -> tuple[str, str, str]:
    return row["scaling"], row["initialiser"], row["norm"]


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _last_loss(rows: Sequence[Row]) -> float:
    return float(rows[-1]["loss"])


if __name__ == "__main__":
    command.run(main)
