"""The whole of a run, top to bottom: data, model, resume, the loop over steps, results."""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flowers_jax import losses, models, optimizers, reference, settings, weights
from flowers_jax.data import batches, folder, sources, splits
from flowers_jax.data.batches import Batches, Splits
from flowers_jax.data.sources import DataSource
from flowers_jax.models import Variables
from flowers_jax.ops import backend
from flowers_jax.process.errors import Interrupted, UserError
from flowers_jax.process.interruption import Interruption
from flowers_jax.runs import evaluate, files, images, results, run_folder
from flowers_jax.runs.checkpoints import Checkpoints
from flowers_jax.runs.progress import EpochBar
from flowers_jax.runs.record import Record
from flowers_jax.runs.run_folder import Summary
from flowers_jax.step import Metrics
from flowers_jax.trainer import Trainer, create_mesh, create_task

log = logging.getLogger(__name__)


@backend.full_memory_named()
def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> Summary:
    """Trains as `config` says and leaves the results in the run folder `workdir`.

    An interrupted run goes on from its last checkpoint; a finished one is left as it is. When
    several processes train together, all of them call this, and the first writes.

    Returns:
      What `summary.json` holds.

    Raises:
      UserError: the settings, the data or the run folder cannot be used, or the memory is full.
      Interrupted: a signal came; the run is saved up to the step it came in.
      ResultsIncomplete: the run is trained, and some results could not be written.
    """
    backend.require_devices()
    config, workdir = settings.check(config), Path(workdir)
    photographs = sources.named_folder(config.data)
    if photographs:
        folder.require_outside(workdir, photographs)
    if jax.process_index() > 0:
        return finished_summary(config, workdir) or _train(config, workdir, writes=False)
    files.prepare(workdir)
    with run_folder.lock(workdir):
        return finished_summary(config, workdir) or _train(config, workdir, writes=True)


def finished_summary(config: ConfigDict, workdir: Path) -> Summary | None:
    """The summary of the run in `workdir`; None if there is none or it is not finished.

    Raises:
      UserError: the folder holds a run with other settings.
    """
    if not (workdir / "config.json").exists():
        return None
    old = settings.from_json(run_folder.read_config(workdir))
    run_folder.require_same_settings(workdir, old, config)
    summary = run_folder.read_summary(workdir)
    if summary is None:
        return None
    if config.max_epochs > summary["epochs_run"] and not summary["stopped_early"]:
        return None  # it is given more epochs
    log.info("%s is finished; --restart begins anew", workdir)
    return summary


def _train(config: ConfigDict, workdir: Path, writes: bool) -> Summary:
    # Data; the devices first, so that TensorFlow cannot take what JAX needs.
    mesh = create_mesh()
    log.info("jax %s on %s (%s)", jax.__version__, device_name(), jax.default_backend())
    source, data = load_data(config, workdir, mesh)
    num_steps = len(data.train)  # of an epoch
    if writes:
        images.record(workdir, data.files)

    # Model
    task = create_task(config, len(data.class_names), num_steps, data.train.files.counts())
    options = backend.compiler_options(config.deterministic)
    trainer = Trainer(task, config.image_size, mesh, options)
    state = weights.initial_state(config, trainer)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log.info("%s: %s parameters", config.model, f"{num_params:,}")
    schedule = optimizers.learning_rate_schedule(config.optimizer, num_steps)

    # Resume
    record = Record(config, workdir, task.model.HEADS, data.num_images, writes)
    kept, metrics = trainer.replicate(state.variables), trainer.zero_metrics()
    checkpoints = Checkpoints(workdir, config.checkpoint.every_minutes)
    restored = checkpoints.restore({"state": state, "best": kept, "epoch": metrics})
    if restored is not None:
        trees, progress = restored
        state, kept, metrics = trees["state"], trees["best"], trees["epoch"]
        record.restore(progress)
    step = int(state.step)
    if step:
        log.info("goes on after epoch %d, step %d", *divmod(step, num_steps))
    if writes:
        table = models.table(task.model, config.image_size)
        run_folder.describe(workdir, config, data.class_names, table)
    if restored is None:
        show_first_batch(config, workdir, trainer, data.train, writes)

    # Epochs
    with files.full_disk_named(workdir), Interruption() as interruption, checkpoints:
        while not record.is_done:
            epoch, done = record.epoch, step - len(record.history) * num_steps
            order = batches.epoch_order(len(data.train.files), config.seed, epoch)
            keys = trainer.keys(config.seed, epoch)
            record.start_epoch()
            with EpochBar(epoch, config.max_epochs, num_steps, done) as bar:
                for batch in data.train.epoch(order, done):
                    state, metrics = trainer.train_step(state, metrics, batch, keys)
                    step += 1
                    bar.advance(metrics)
                    if interruption.signal:
                        break
            report_non_finite(config, metrics, epoch, schedule)
            validation = evaluate_split(trainer, state.variables, data.validation, interruption)
            if not interruption.signal:
                averages = metrics.averages() | validation.averages("val_")
                is_best = record.end_epoch(averages, float(schedule(step - 1)))
                if is_best or not record.reports_best:
                    kept = trainer.replicate(state.variables)
                metrics = trainer.zero_metrics()
            if interruption.signal or record.is_done or checkpoints.due():
                trees = {"state": state, "best": kept, "epoch": metrics}
                # The last step of an epoch can be saved before its validation and after it. The
                # next step takes over the memory of the state, hence a copy.
                number = step + len(record.history)
                checkpoints.save(number, trainer.replicate(trees), record.to_json())
            if interruption.signal:
                done = step - len(record.history) * num_steps
                raise Interrupted(interruption.signal, f"epoch {record.epoch}, step {done}")

    # Results
    summary = record.summary(_circumstances(source, data, num_params))
    evaluations = {
        name: evaluate.evaluate(split.files, trainer.predict(kept, split.epoch()), {})
        for name, split in (("validation", data.validation), ("test", data.test))
        if split is not None
    }
    summary |= evaluate.scores(evaluations)
    if writes:
        original = reference.history(config.study_run)
        results.write(workdir, summary, record.history, evaluations, original)
    return summary


def show_first_batch(
    config: ConfigDict, workdir: Path, trainer: Trainer, train: Batches, writes: bool
) -> None:
    """Draws the first batch as the network will see it; all processes take part."""
    order = batches.epoch_order(len(train.files), config.seed, epoch=1)
    pixels = trainer.train_images(next(train.epoch(order)), trainer.keys(config.seed, epoch=1))
    if writes:
        shown = train.files.take(order[: config.batch_size])
        results.write_batch(workdir, shown, np.asarray(pixels))


def evaluate_split(
    trainer: Trainer, variables: Variables, split: Batches, interruption: Interruption
) -> Metrics:
    """The metrics of a split; a signal ends it early."""
    metrics = trainer.zero_metrics()
    for batch in split.epoch():
        if interruption.signal:
            break
        metrics = trainer.eval_step(variables, metrics, batch)
    return metrics


def load_data(config: ConfigDict, workdir: Path, mesh: Mesh) -> tuple[DataSource, Splits]:
    """The images that `config.data` asks for, split and decoded.

    Raises:
      UserError: they cannot be used.
    """
    source = sources.resolve(config.data, workdir)
    files = splits.read(source.root, config.data)
    num_classes = len(files.train.class_names)
    if config.num_classes not in (None, num_classes):
        raise UserError(
            f"config.num_classes={config.num_classes}, but the data has {num_classes} classes; "
            "leave it unset or choose other data."
        )
    losses.class_weights(config.class_weights, files.train.counts())  # refuses a wrong number
    data = batches.load(files, config, workdir, mesh)
    kinds = ("training", "validation", "test")
    counts = [f"{len(f)} {kind}" for f, kind in zip(data.files, kinds, strict=True) if f]
    log.info("%s: %s images of %d classes", source.name, ", ".join(counts), num_classes)
    return source, data


def report_non_finite(
    config: ConfigDict, metrics: Metrics, epoch: int, schedule: optax.Schedule
) -> None:
    """Ends or warns, as `config.on_non_finite` says, if steps of the epoch were not finite.

    Raises:
      UserError: a step was not finite and the run is to stop, or all were.
    """
    metrics = jax.device_get(metrics)
    if not metrics.non_finite_steps:
        return
    step = int(metrics.non_finite_step)
    what = (
        f"the loss or its gradient is not finite at step {step}, in epoch {epoch} "
        f"(seed {config.seed}, learning rate {float(schedule(step - 1)):g}, "
        f"gradient norm {metrics.non_finite_gradient_norm:g})"
    )
    if config.on_non_finite == "stop":
        raise UserError(
            f"{what}; the last checkpoint is kept. Try a smaller learning rate, or "
            "--config.on_non_finite=skip_step in another --workdir."
        )
    if not metrics.count:
        raise UserError(f"{what}, and so are all steps of the epoch; try a smaller learning rate.")
    log.warning("%s; %.0f steps of the epoch are skipped", what, metrics.non_finite_steps)


def _circumstances(source: DataSource, data: Splits, num_params: int) -> dict[str, Any]:
    """What a summary says of data, model and device."""
    return {
        "data_source": source.name,
        "num_train": len(data.train.files),
        "num_validation": len(data.validation.files),
        "num_test": len(data.files.test or ()),
        "num_skipped": data.num_skipped,
        "class_names": list(data.class_names),
        "num_params": num_params,
        "device": device_name(),
    }


def device_name() -> str:
    """Number and kind of the devices."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
