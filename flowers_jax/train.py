"""The training loop: one jitted step over a mesh of all devices, one pass per epoch.

`train_and_evaluate` is the whole of a run; `train_step` and `eval_step` are pure functions.
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorboardX
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from flowers_jax import (
    cpu,
    evaluate,
    losses,
    models,
    optimizers,
    progress,
    results,
    settings,
    transfer,
)
from flowers_jax.checkpoints import Checkpoints
from flowers_jax.data import augment, feed, folder, pipeline, sources
from flowers_jax.early_stopping import EarlyStopping
from flowers_jax.errors import Interrupted, UserError
from flowers_jax.interruption import Interruption

log = logging.getLogger(__name__)

Variables = dict[str, Any]
Sums = dict[str, jax.Array]
Keys = dict[str, jax.Array]
Batch = dict[str, jax.Array]  # a `pipeline.Batch` on the devices
# Among the sums of an epoch: the steps whose loss or gradient was not finite, and of the first of
# them its number (from 1, over the run) and the norm of its gradient.
NON_FINITE = ("non_finite_steps", "non_finite_step", "non_finite_gradient_norm")


@flax.struct.dataclass
class TrainState:
    """What a training step changes.

    Attributes:
      step: int32 scalar, steps taken.
      params: the model's parameters, float32.
      batch_stats: running statistics of batch normalisation; empty for models without.
      opt_state: the optimizer's state.
    """

    step: jax.Array
    params: Variables
    batch_stats: Variables
    opt_state: optax.OptState

    @property
    def variables(self) -> Variables:
        """As `model.apply` takes them."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a training step does not change.

    Attributes:
      model: the architecture.
      optimizer: its update rule.
      loss: of one head, per sample.
      aux_weight: weight of the auxiliary heads' losses.
      input_scaling: a name of `augment.SCALINGS`.
      augmentation: of the training images; None for none.
      frozen: names of the layers that keep their weights, see `transfer.is_frozen`.
      on_non_finite: 'stop', 'skip_step' or 'ignore', see `train_step`.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: losses.Loss
    aux_weight: float
    input_scaling: str
    augmentation: augment.Augmentation | None
    frozen: tuple[str, ...] = ()
    on_non_finite: str = "stop"


def run_keys(seed: int, epoch: int) -> Keys:
    """Typed keys of the run (`init`, `dropout`) and of the epoch (`augment`)."""
    init, dropout, augmentation = jax.random.split(jax.random.key(seed), 3)
    keys = {"init": init, "dropout": dropout}
    return keys | {"augment": jax.random.fold_in(augmentation, epoch)}


def create_state(task: Task, image_size: int, key: jax.Array) -> TrainState:
    """The state before the first step, initialised as Keras does."""
    images = jnp.zeros((1, image_size, image_size, 3))
    variables = task.model.init(key, images)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=task.optimizer.init(params),
    )


def zero_sums(model: nn.Module) -> Sums:
    """The sums of an epoch before its first batch."""
    heads = models.head_names(model)
    names = ["count", "loss", "correct"]
    names += [f"{head}_{what}" for head in heads for what in ("loss", "correct")]
    return {name: jnp.zeros(()) for name in (*names, *NON_FINITE)}


def train_step(
    task: Task, state: TrainState, sums: Sums, batch: Batch, keys: Keys
) -> tuple[TrainState, Sums]:
    """One step of gradient descent.

    Args:
      task: static.
      state: before the step.
      sums: of the epoch so far.
      batch: see `pipeline.Batch`; samples whose mask is false do not count.
      keys: typed keys `dropout` (of the run) and `augment` (of the epoch).

    Returns:
      The state after the step and the sums with this batch, dropout active. Where the loss or the
      norm of its gradient is not finite, the sums say so unless `task.on_non_finite` is 'ignore';
      with 'skip_step' state and metrics stay as they were.
    """
    images = batch["image"]
    if task.augmentation is not None:
        images = augment.augment(images, batch["index"], keys["augment"], task.augmentation)
    images = augment.scale(images, task.input_scaling)

    def objective(params: Variables) -> tuple[jax.Array, tuple[Sums, Variables]]:
        params = transfer.stop_gradients(params, task.frozen)
        with nn.intercept_methods(transfer.inference_where_frozen(task.frozen)):
            outputs, updated = task.model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                images,
                train=True,
                mask=batch["mask"],
                rngs={"dropout": jax.random.fold_in(keys["dropout"], state.step)},
                mutable=["batch_stats"],
            )
        batch_sums = _sum_metrics(task, outputs, batch)
        return batch_sums["loss"] / batch_sums["count"], (batch_sums, updated)

    gradients, (batch_sums, updated) = jax.grad(objective, has_aux=True)(state.params)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    new_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=updated.get("batch_stats", {}),
        opt_state=opt_state,
    )
    new_sums = _add(sums, batch_sums)
    if task.on_non_finite == "ignore":
        return new_state, new_sums
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(batch_sums["loss"]) & jnp.isfinite(norm)
    if task.on_non_finite == "skip_step":
        keep = partial(jax.tree.map, partial(jnp.where, finite))
        new_state = keep(new_state, state.replace(step=new_state.step))
        new_sums = keep(new_sums, sums)
    first = ~finite & (sums["non_finite_steps"] == 0)
    new_sums["non_finite_steps"] += ~finite
    new_sums["non_finite_step"] += jnp.where(first, new_state.step, 0)
    new_sums["non_finite_gradient_norm"] += jnp.where(first, norm, 0)
    return new_state, new_sums


def eval_step(task: Task, variables: Variables, sums: Sums, batch: Batch) -> Sums:
    """The sums with this batch, without dropout and with running statistics; all heads count."""
    images = augment.scale(batch["image"], task.input_scaling)
    heads = {"all_heads": True} if models.head_names(task.model) else {}
    outputs = task.model.apply(variables, images, train=False, **heads)
    return _add(sums, _sum_metrics(task, outputs, batch))


def _add(sums: Sums, batch_sums: Sums) -> Sums:
    return sums | {name: sums[name] + value for name, value in batch_sums.items()}


def _sum_metrics(task: Task, outputs: jax.Array | Sequence[jax.Array], batch: Batch) -> Sums:
    """Sums over the real samples of a batch, by the names of `zero_sums`."""
    logits = [outputs] if isinstance(outputs, jax.Array) else list(outputs)
    head_losses = [task.loss(head, batch["label"]) for head in logits]
    correct = [head.argmax(axis=-1) == batch["label"] for head in logits]
    values = {
        "count": jnp.ones(batch["label"].shape),
        "loss": losses.sum_over_heads(head_losses, task.aux_weight),
        "correct": correct[0],
    }
    for name, loss, hits in zip(models.head_names(task.model), head_losses, correct, strict=False):
        values |= {f"{name}_loss": loss, f"{name}_correct": hits}
    return {k: jnp.sum(v, where=batch["mask"], dtype=jnp.float32) for k, v in values.items()}


def means(sums: Sums, prefix: str = "") -> dict[str, float]:
    """Metrics of an epoch from its sums, by the history's column names; NaN without samples."""
    sums = {name: float(value) for name, value in jax.device_get(sums).items()}
    count = sums.pop("count") or np.nan
    names = [name for name in sums if name not in NON_FINITE]
    return {prefix + k.replace("correct", "accuracy"): sums[k] / count for k in names}


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains as `config` says and leaves the results in the run folder `workdir`.

    A run that was interrupted goes on from its last checkpoint; a finished one is left as it is.
    Where several processes train together all call it, and the first writes.

    Returns:
      What `summary.json` holds.

    Raises:
      UserError: the settings, the data or the run folder cannot be used.
      Interrupted: a SIGINT or SIGTERM came; the run is saved up to the step that it came in.
    """
    settings.check(config)
    writes = jax.process_index() == 0
    if writes:
        results.prepare(workdir)
    finished = results.finished_summary(workdir, results.json_config(config))
    if finished is not None:
        log.info("%s is finished; --restart begins anew", workdir)
        return finished

    # Devices: JAX first, so that TensorFlow cannot take what it needs.
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    log.info("jax %s on %s (%s)", jax.__version__, device, jax.default_backend())

    # Data
    source = sources.resolve(config.data, workdir)
    files = folder.split(folder.scan(source.root), config.data)
    train, validation, num_skipped = feed.load(
        *files,
        config.image_size,
        config.data.resize,
        config.data.on_bad_image,
        config.batch_size,
        config.data.cache,
        workdir,
        mesh,
    )
    class_names = train.files.class_names
    log.info(
        "%s: %d training and %d validation images of %d classes",
        source.name,
        len(train.files),
        len(validation.files),
        len(class_names),
    )
    num_images = len(train.files) + len(validation.files)
    num_steps = -(-len(train.files) // config.batch_size)

    # Model and state
    task = create_task(config, len(class_names))
    heads = models.head_names(task.model)
    if writes:
        results.claim(workdir, results.json_config(config), class_names)
        results.write_text(workdir / "model.txt", models.table(task.model, config.image_size))
    on_all_devices = partial(jax.jit, out_shardings=replicated)
    create_keys = on_all_devices(run_keys, static_argnums=0)
    create = partial(create_state, task, config.image_size)
    state = on_all_devices(create)(create_keys(config.seed, 0)["init"])
    if config.init_from:
        state = on_all_devices(lambda x: x)(start_from(config, state, len(class_names)))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log.info("%s: %s parameters", config.model, f"{num_params:,}")

    jit = partial(on_all_devices, compiler_options=cpu.compiler_options(), donate_argnums=0)
    step = jit(train.loop(lambda carry, batch, keys: train_step(task, *carry, batch, keys)))
    evaluation = jit(
        validation.loop(lambda sums, batch, variables: eval_step(task, variables, sums, batch))
    )
    copy = on_all_devices(partial(jax.tree.map, jnp.copy))
    no_sums = on_all_devices(partial(zero_sums, task.model))
    schedule = optimizers.learning_rate_schedule(config.optimizer)

    # Resume
    stopping, monitor = early_stopping(config)
    history: results.History = []
    best, sums = copy(state.variables), no_sums()
    steps_done, seconds_before = 0, 0.0  # of the epoch that is under way
    checkpoints = Checkpoints(workdir, config.checkpoint.every_minutes)
    restored = checkpoints.restore({"state": state, "best": best, "sums": sums})
    if restored is not None:
        trees, run = restored
        state, best, sums = trees["state"], trees["best"], trees["sums"]
        history, stopping = run["history"], EarlyStopping(**run["stopping"])
        steps_done, seconds_before = run["steps_done"], run["seconds"]
        log.info(
            "goes on after epoch %d%s", len(history), f", step {steps_done}" * bool(steps_done)
        )

    # What one checkpoint takes: `best` is a part of the state, and there once more.
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((state, best)))

    def save() -> None:
        run = {"history": history, "stopping": dataclasses.asdict(stopping)}
        run |= {"steps_done": steps_done, "seconds": seconds_before}
        # The next step donates the state's and the sums' buffers.
        trees = copy({"state": state, "sums": sums}) | {"best": best}
        checkpoints.save(len(history) * (num_steps + 1) + steps_done, trees, run)

    # Epochs
    events = tensorboardX.SummaryWriter(
        str(workdir), purge_step=len(history) + 1, write_to_disk=writes
    )
    full_disk = results.full_disk_named(workdir)
    with full_disk, Interruption() as interruption, checkpoints, events:
        while len(history) < config.max_epochs and not stopping.should_stop:
            epoch = len(history) + 1
            start = time.perf_counter() - seconds_before
            keys = create_keys(config.seed, epoch)
            order = pipeline.epoch_order(len(train.files), config.seed, epoch)
            with progress.EpochBar(epoch, config.max_epochs, num_steps, steps_done) as bar:
                for num, batches in train.epoch(order, steps_done):
                    state, sums = step((state, sums), batches, keys)
                    steps_done += num
                    bar.advance(num, sums)
                    if interruption.signal:
                        break
            report_non_finite(config, sums, epoch)
            val_sums = no_sums()
            for _, batches in validation.epoch():
                if interruption.signal:
                    break
                val_sums = evaluation(val_sums, batches, state.variables)
            results.require_space(workdir, num_bytes)
            if interruption.signal:
                seconds_before = time.perf_counter() - start
                save()
                raise Interrupted(interruption.signal, f"epoch {epoch}, step {steps_done}")
            row = {"epoch": epoch, **means(sums), **means(val_sums, "val_")}
            row["learning_rate"] = float(schedule(int(state.step) - 1))
            row["seconds"] = time.perf_counter() - start
            history.append(row)
            stopping = stopping.update(epoch, row[monitor])
            if stopping.best_epoch == epoch:
                best = copy(state.variables)
            sums = no_sums()
            steps_done, seconds_before = 0, 0.0

            if writes:
                results.write_history(workdir, history, heads)
            for name, value in row.items():
                if name != "epoch":
                    events.add_scalar(name, value, epoch)
            events.flush()
            log.info(progress.epoch_line(row, config.max_epochs, num_images, stopping))
            if checkpoints.due():
                save()
        save()

    # Results
    restore_best = config.early_stopping is None or config.early_stopping.restore_best_weights
    reported = stopping.best_epoch if restore_best else len(history)
    probabilities = evaluate.probabilities(
        task.model,
        best if restore_best else state.variables,
        validation.batches(),
        config.input_scaling,
    )
    accuracies = [row["val_accuracy"] for row in history]
    seconds = [row["seconds"] for row in history]
    summary = {
        "config": results.json_config(config),
        "data_source": source.name,
        "num_train": len(train.files),
        "num_validation": len(validation.files),
        "num_skipped": num_skipped,
        "class_names": list(class_names),
        "epochs_run": len(history),
        "stopped_early": stopping.should_stop,
        "best_epoch": stopping.best_epoch,
        "best_val_accuracy": max(accuracies),
        "reported_epoch": reported,
        "reported_val_accuracy": accuracies[reported - 1],
        "max_train_accuracy": max(row["accuracy"] for row in history),
        "num_params": num_params,
        "train_seconds": sum(seconds),
        "images_per_second": num_images / float(np.median(seconds)),
        "device": device,
        "versions": results.versions(),
        "seed": config.seed,
    }
    if writes:
        results.write_evaluation(workdir, summary, history, validation.files, probabilities)
        results.write_json(workdir / "summary.json", summary)
    log.info(
        "best epoch %d of %d, validation accuracy %.2f %%; results in %s",
        stopping.best_epoch,
        len(history),
        100 * max(accuracies),
        workdir,
    )
    return summary


def report_non_finite(config: ConfigDict, sums: Sums, epoch: int) -> None:
    """Ends or warns, as `config.on_non_finite` says, where steps of the epoch were not finite.

    Raises:
      UserError: a step was not finite and the run is to stop, or all were.
    """
    count, step, norm = (float(sums[name]) for name in NON_FINITE)
    if not count:
        return
    rate = float(optimizers.learning_rate_schedule(config.optimizer)(int(step) - 1))
    what = (
        f"the loss or its gradient is not finite at step {step:.0f}, in epoch {epoch} "
        f"(learning rate {rate:g}, gradient norm {norm:g})"
    )
    if config.on_non_finite == "stop":
        raise UserError(
            f"{what}; the last checkpoint is kept. Try a smaller learning rate, or "
            "--config.on_non_finite=skip_step in another --workdir."
        )
    if not float(sums["count"]):
        raise UserError(f"{what}, and so are all steps of the epoch; try a smaller learning rate.")
    log.warning("%s; %.0f steps of the epoch are skipped", what, count)


def create_task(config: ConfigDict, num_classes: int) -> Task:
    """The static part of the steps.

    Raises:
      UserError: `config.num_classes` is set and is not the data's.
    """
    if config.num_classes not in (None, num_classes):
        raise UserError(
            f"config.num_classes={config.num_classes}, but the data has {num_classes} classes; "
            "leave it unset or choose other data."
        )
    augmentation = config.data.augment
    optimizer = optimizers.create_optimizer(config.optimizer)
    if config.frozen:
        optimizer = transfer.freeze_optimizer(optimizer, config.frozen)
    return Task(
        model=models.create_model(config.model, num_classes, jnp.dtype(config.dtype)),
        optimizer=optimizer,
        loss=losses.LOSSES[config.loss],
        aux_weight=config.aux_weight or 0.0,
        input_scaling=config.input_scaling,
        augmentation=None if augmentation is None else augment.Augmentation(**augmentation),
        frozen=tuple(config.frozen),
        on_non_finite=config.on_non_finite,
    )


def start_from(config: ConfigDict, state: TrainState, num_classes: int) -> TrainState:
    """`state` with the weights of the file `config.init_from`."""
    variables = {"params": state.params}
    if state.batch_stats:
        variables["batch_stats"] = state.batch_stats
    variables = transfer.initialise(variables, config.init_from, config.model, num_classes)
    log.info("starts from the weights of %s", config.init_from)
    return state.replace(**variables)


def early_stopping(config: ConfigDict) -> tuple[EarlyStopping, str]:
    """The rule and the column it watches; without one, what finds the best validation accuracy."""
    stop = config.early_stopping
    if stop is None:
        return EarlyStopping("max", patience=config.max_epochs + 1), "val_accuracy"
    return EarlyStopping(stop.mode, stop.patience, stop.min_delta), stop.monitor
