"""Why VGG16 did not learn: input scaling, initialisation and batch normalisation, step by step.

Every tenth step of Adam with the study's settings, the norm of the loss's gradient and the variance
of the activations are taken, per layer.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
from flax import linen as nn
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from flowers_jax import settings, train
from flowers_jax.data import batches, scaling
from flowers_jax.data.batches import Batch, Batches
from flowers_jax.models import Variables
from flowers_jax.ops import backend
from flowers_jax.runs import files, run_folder
from flowers_jax.step import Scalar, Task, TrainState
from flowers_jax.study.runner import Run
from flowers_jax.trainer import Trainer, create_mesh, create_task

EVERY = 10
STEPS = 200
IMAGE_SIZE = 150
SCALINGS = {"0..255": "none", "0..1": "0_1", "-1..1": "-1_1"}
INITIALISERS = {"glorot": "glorot_uniform", "he": "he_uniform"}
NORMS = {"plain": False, "batch norm": True}
# Scaling, initialiser and norm, as the table names them.
Variant = tuple[str, str, str]
VARIANTS: list[Variant] = list(itertools.product(SCALINGS, INITIALISERS, NORMS))
QUANTITIES = ("gradient_norm", "activation_variance")
HEADER = ["scaling", "initialiser", "norm", "step", "loss", "accuracy", "layer", *QUANTITIES]
Row = dict[str, str]  # by the names in HEADER
ByLayer = dict[str, Scalar]


def run(data_dir: str | None, image_size: int, num_steps: int) -> None:
    """Trains the variants that `layers.csv` does not hold yet; writes the table and the figures."""
    backend.reuse_memory()
    backend.use_compilation_cache()
    out = Path("runs/ablation_vgg16")
    if (image_size, num_steps) != (IMAGE_SIZE, STEPS):
        out = out.with_name(f"ablation_vgg16_{image_size}px_{num_steps}_steps")
    files.prepare(out)
    study = Run("vgg16_adam", {"image_size": image_size, "data.dir": data_dir}, out)
    config = settings.check(study.load())
    train.finished_summary(config, out)  # refuses other settings
    files.write_json(out / "config.json", run_folder.json_config(config))
    mesh = create_mesh()
    _, data = train.load_data(config, out, mesh)
    rows = files.read_csv(out / "layers.csv")
    measured = {_variant(row) for row in rows}
    for variant in (variant for variant in VARIANTS if variant not in measured):
        task = create_task(variant_config(config, variant), len(data.class_names))
        for measurement in measure(Trainer(task, image_size, mesh), data.train, num_steps):
            values = (*variant, *measurement)
            rows.append({name: str(v) for name, v in zip(HEADER, values, strict=True)})
        files.write_csv(out / "layers.csv", HEADER, ([r[c] for c in HEADER] for r in rows))
        print(f"{', '.join(variant)}: {float(rows[-1]['loss']):.4f}", flush=True)
    files.write_text(out / "table.md", table(rows))
    for quantity in QUANTITIES:
        files.write_figure(out / f"{quantity}.png", draw(rows, quantity))
    print(f"table and figures are in {out}")


def variant_config(config: ConfigDict, variant: Variant) -> ConfigDict:
    """The settings of a variant."""
    scaling_name, initialiser, norm = variant
    config = config.copy_and_resolve_references()
    config.input_scaling = SCALINGS[scaling_name]
    config.model_args.update(initializer=INITIALISERS[initialiser], batch_norm=NORMS[norm])
    return config


def measure(trainer: Trainer, data: Batches, num_steps: int) -> Iterator[tuple[object, ...]]:
    """Trains, and gives `HEADER` from `step` on for each probed step and layer.

    Loss and accuracy are means of the steps since the last probe, NaN before the first step.
    """
    state, metrics, keys = trainer.create_state(0), trainer.zero_metrics(), trainer.keys(0, 1)
    probe_step = trainer.jit(partial(probe, trainer.task))
    orders = (batches.epoch_order(len(data.files), 0, epoch) for epoch in itertools.count(1))
    endless = itertools.chain.from_iterable(map(data.epoch, orders))
    for i, batch in enumerate(itertools.islice(endless, num_steps + 1)):
        if i % EVERY == 0:
            norms, variances = jax.device_get(probe_step(state, batch))
            means = metrics.averages()
            metrics = trainer.zero_metrics()
            for layer, norm in norms.items():
                yield i, means["loss"], means["accuracy"], layer, norm, variances[layer]
        state, metrics = trainer.train_step(state, metrics, batch, keys)


def probe(task: Task, state: TrainState, batch: Batch) -> tuple[ByLayer, ByLayer]:
    """Per layer the norm of the gradient and the variance of the activations, before the ReLU.

    Layers are the convolutions and dense layers; the gradient is that of the mean loss, of kernel
    and bias together. Batch normalisation uses the statistics of the batch, as in training.
    """
    images, mask = scaling.scale(batch["image"], task.input_scaling), batch["mask"]

    def loss(params: Variables) -> tuple[Scalar, Variables]:
        logits, captured = task.model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mask=mask,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Conv | nn.Dense),
        )
        of_samples = task.loss(logits, batch["label"])
        return of_samples.mean(where=mask), captured["intermediates"]

    gradients, captured = jax.grad(loss, has_aux=True)(state.params)
    norms, variances = {}, {}
    for layer, weights in gradients.items():
        if "kernel" in weights:
            [values] = captured[layer]["__call__"]
            norms[layer] = optax.global_norm(weights)
            variances[layer] = values.var(where=mask.reshape(-1, *[1] * (values.ndim - 1)))
    return norms, variances


def table(rows: Sequence[Row]) -> str:
    """For each variant the loss and accuracy of the last ten steps, and the signal at the start."""
    header = [*HEADER[:3], "loss of the last ten steps", "accuracy"]
    header += ["first layer's gradient at step 0", "variance of the logits at step 0"]
    last = {_variant(row): row for row in rows}
    start = {(_variant(row), row["layer"]): row for row in rows if row["step"] == "0"}
    cells = [
        [
            *variant,
            f"{float(last[variant]['loss']):.3f}",
            f"{100 * float(last[variant]['accuracy']):.1f}",
            f"{float(start[variant, 'block1_conv1']['gradient_norm']):.1e}",
            f"{float(start[variant, 'predictions']['activation_variance']):.1e}",
        ]
        for variant in VARIANTS
        if variant in last
    ]
    return files.markdown(header, cells)


def draw(rows: Sequence[Row], quantity: str) -> Figure:
    """One of `QUANTITIES` over the steps and the layers, a panel for each variant."""
    least = 1e-7  # also the colour of zero
    layers = list(dict.fromkeys(r["layer"] for r in rows))
    steps = sorted({int(r["step"]) for r in rows})
    values = np.full((len(VARIANTS), len(layers), len(steps)), np.nan)
    for r in rows:
        place = VARIANTS.index(_variant(r)), layers.index(r["layer"]), steps.index(int(r["step"]))
        values[place] = max(float(r[quantity]), least)
    norm = LogNorm(least, max(10 * least, values.max(initial=0, where=np.isfinite(values))))
    figure = Figure(figsize=(13, 10), layout="constrained")
    figure.suptitle(f"VGG16: {quantity.replace('_', ' ')} over the steps")
    panels = figure.subplots(3, 4, sharex=True).flat
    for axes, variant, panel in zip(panels, VARIANTS, values, strict=True):
        mesh = axes.pcolormesh(steps, range(len(layers)), panel, norm=norm, shading="nearest")
        axes.set_title(", ".join(variant), fontsize=10)
        first_column = axes.get_subplotspec().is_first_col()
        axes.set_yticks(range(len(layers)), layers if first_column else [], fontsize=7)
        axes.invert_yaxis()
    figure.supxlabel("step")
    figure.colorbar(mesh, ax=figure.axes, shrink=0.6)
    return figure


def _variant(row: Row) -> Variant:
    return row["scaling"], row["initialiser"], row["norm"]
