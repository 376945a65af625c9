"""The training loop: one jitted step over a mesh of all devices, one pass per epoch.

`train_and_evaluate` is the whole of a run; `train_step` and `eval_step` are pure functions.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
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
from flowers_jax.checkpoints import Checkpoints, Trees
from flowers_jax.data import augment, feed, folder, pipeline, sources
from flowers_jax.errors import Interrupted, UserError
from flowers_jax.interruption import Interruption
from flowers_jax.record import Record
from flowers_jax.replicas import Replicas

log = logging.getLogger(__name__)

Variables = dict[str, Any]
Sums = dict[str, jax.Array]
Keys = dict[str, jax.Array]
Carry = tuple[Any, Sums]  # train state and sums
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


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the runs of a config share, whatever their seed.

    Attributes:
      config: of the runs.
      mesh: all devices, on the axis `data`.
      source: of the images.
      train: feeds the training split.
      validation: feeds the validation split.
      task: the static part of the steps.
      num_skipped: images that were left out.
    """

    config: ConfigDict
    mesh: Mesh
    source: sources.DataSource
    train: feed.HostFeed | feed.DeviceFeed
    validation: feed.HostFeed | feed.DeviceFeed
    task: Task
    num_skipped: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of both splits."""
        return self.train.files.class_names

    @property
    def num_images(self) -> int:
        """In both splits."""
        return len(self.train.files) + len(self.validation.files)

    @property
    def num_steps(self) -> int:
        """Training steps of an epoch."""
        return -(-len(self.train.files) // self.config.batch_size)

    def jit(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:  # noqa: ANN401
        """`jax.jit`, with results that every device holds."""
        replicated = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(function, out_shardings=replicated, **options)

    def jit_loop(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jit` for a loop of steps, which takes over the memory of its first argument."""
        return self.jit(function, compiler_options=cpu.compiler_options(), donate_argnums=0)

    def create_state(self, seed: int) -> TrainState:
        """The state before the first step of the run with this seed."""
        create = partial(create_state, self.task, self.config.image_size)
        key = self.jit(run_keys, static_argnums=0)(seed, 0)["init"]
        state = self.jit(create)(key)
        if self.config.init_from:
            started = start_from(self.config, state, len(self.class_names))
            state = self.jit(lambda x: x)(started)
        return state

    def claim(self, workdir: Path, config: ConfigDict) -> None:
        """Makes `workdir` the folder of a run with this config; see `results.claim`."""
        results.claim(workdir, results.json_config(config), self.class_names)
        table = models.table(self.task.model, config.image_size)
        results.write_text(workdir / "model.txt", table)

    def facts(self, num_params: int, num_replicas: int) -> dict[str, Any]:
        """What `Record.finish` takes."""
        return {
            "data_source": self.source.name,
            "num_train": len(self.train.files),
            "num_validation": len(self.validation.files),
            "num_skipped": self.num_skipped,
            "class_names": list(self.class_names),
            "num_params": num_params,
            "num_replicas": num_replicas,
            "device": _device(),
        }

    def probabilities(self, variables: Variables) -> np.ndarray:
        """Of the validation split, `[n, num_classes]`."""
        batches, scaling = self.validation.batches(), self.task.input_scaling
        return evaluate.probabilities(self.task.model, variables, batches, scaling)


def set_up(config: ConfigDict, workdir: Path) -> Experiment:
    """Devices, data and model of a run in the folder `workdir`.

    Raises:
      UserError: the data cannot be used.
    """
    # Devices: JAX first, so that TensorFlow cannot take what it needs.
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    log.info("jax %s on %s (%s)", jax.__version__, _device(), jax.default_backend())

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
    task = create_task(config, len(class_names))
    return Experiment(config, mesh, source, train, validation, task, num_skipped)


def _device() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def train_and_evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains as `config` says and leaves the results in the run folder `workdir`.

    A run that was interrupted goes on from its last checkpoint; a finished one is left as it is.
    Where several processes train together all call it, and the first writes. With
    `config.num_replicas` > 1 the seeds from `config.seed` on are trained at once: each stops when
    it would alone and leaves in `workdir/seed_<s>` what it would leave alone.

    Returns:
      What `summary.json` holds, of the first seed where there are several.

    Raises:
      UserError: the settings, the data or the run folder cannot be used.
      Interrupted: a SIGINT or SIGTERM came; the run is saved up to the step that it came in.
    """
    settings.check(config)
    writes = jax.process_index() == 0
    replicas = Replicas(config.num_replicas)
    runs = _single_runs(config, workdir)
    if writes:
        for folder in {workdir: None, **runs}:
            results.prepare(folder)
    results.finished_summary(workdir, results.json_config(config))  # refuses other settings
    finished = [results.finished_summary(f, results.json_config(c)) for f, c in runs.items()]
    if all(finished):
        log.info("%s is finished; --restart begins anew", workdir)
        return finished[0]

    experiment = set_up(config, workdir)
    task, train, validation = experiment.task, experiment.train, experiment.validation
    jit = experiment.jit
    state = jit(replicas.stack)([experiment.create_state(c.seed) for c in runs.values()])
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // len(runs)
    log.info("%s: %s parameters", config.model, f"{num_params:,}")

    one_step = replicas.map(partial(train_step, task))

    def all_step(carry: Carry, batch: Batch, keys: Keys, active: jax.Array) -> Carry:
        stepped = one_step(*carry, batch, keys)
        # A single run ends when it is done; of several, those that are done rest.
        return stepped if len(runs) == 1 else replicas.where(active, stepped, carry)

    one_evaluation = replicas.map(partial(eval_step, task), in_axes=(0, 0, None))
    step = experiment.jit_loop(train.loop(all_step))
    evaluation = experiment.jit_loop(
        validation.loop(lambda sums, batch, variables: one_evaluation(variables, sums, batch))
    )
    create_keys = jit(run_keys, static_argnums=0)
    copy = jit(partial(jax.tree.map, jnp.copy))
    stack, take, keep_where = jit(replicas.stack), jit(replicas.take), jit(replicas.where)
    no_sums = jit(lambda: replicas.stack([zero_sums(task.model)] * len(runs)))
    schedule = optimizers.learning_rate_schedule(config.optimizer)

    # Resume
    heads = models.head_names(task.model)
    records = [
        Record(c, folder, heads, writes, f"seed {c.seed} " * (len(runs) > 1))
        for folder, c in runs.items()
    ]
    best, sums = copy(state.variables), no_sums()
    steps_done, seconds_before = 0, 0.0  # of the epoch that is under way
    checkpoints = Checkpoints(workdir, config.checkpoint.every_minutes)
    restored = checkpoints.restore({"state": state, "best": best, "sums": sums})
    if restored is not None:
        trees, progress_made = restored
        state, best, sums = trees["state"], trees["best"], trees["sums"]
        for record, saved in zip(records, progress_made["records"], strict=True):
            record.restore(saved)
        steps_done, seconds_before = progress_made["steps_done"], progress_made["seconds"]
        log.info(
            "goes on after epoch %d%s",
            _epochs_done(records),
            f", step {steps_done}" * bool(steps_done),
        )
    elif len(runs) > 1 and any((folder / "history.csv").exists() for folder in runs):
        raise UserError(
            f"{workdir} holds seeds that were trained alone; choose another --workdir for "
            f"num_replicas={len(runs)}."
        )
    if writes:
        for folder, c in {workdir: config, **runs}.items():
            experiment.claim(folder, c)

    # What one checkpoint takes: `best` is a part of the state, and there once more.
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves((state, best)))

    def save(checkpoints: Checkpoints, records: Sequence[Record], trees: Trees) -> None:
        progress_made = {"records": [record.to_json() for record in records]}
        progress_made |= {"steps_done": steps_done, "seconds": seconds_before}
        number = _epochs_done(records) * (experiment.num_steps + 1) + steps_done
        # The next step donates the state's and the sums' buffers.
        checkpoints.save(number, copy(trees), progress_made)

    # Epochs
    full_disk = results.full_disk_named(workdir)
    with full_disk, Interruption() as interruption, checkpoints, contextlib.ExitStack() as opened:
        for record in records:
            opened.enter_context(record)
        while not all(record.is_done for record in records):
            epoch = _epochs_done(records) + 1
            start = time.perf_counter() - seconds_before
            active = np.array([not record.is_done for record in records])
            keys = stack([create_keys(c.seed, epoch) for c in runs.values()])
            num_train = len(train.files)
            orders = [pipeline.epoch_order(num_train, c.seed, epoch) for c in runs.values()]
            order = np.asarray(replicas.stack(orders))
            bar = progress.EpochBar(epoch, config.max_epochs, experiment.num_steps, steps_done)
            with bar:
                for num, batches in train.epoch(order, steps_done):
                    state, sums = step((state, sums), batches, keys, active)
                    steps_done += num
                    bar.advance(num, sums)
                    if interruption.signal:
                        break
            train_sums = jax.device_get(sums)
            for i, record in enumerate(records):
                report_non_finite(record.config, replicas.take(train_sums, i), epoch)
            val_sums = no_sums()
            for _, batches in validation.epoch():
                if interruption.signal:
                    break
                val_sums = evaluation(val_sums, batches, state.variables)
            results.require_space(workdir, num_bytes)
            if interruption.signal:
                seconds_before = time.perf_counter() - start
                save(checkpoints, records, {"state": state, "best": best, "sums": sums})
                raise Interrupted(interruption.signal, f"epoch {epoch}, step {steps_done}")
            val_sums = jax.device_get(val_sums)
            learning_rate = float(schedule(int(np.max(jax.device_get(state.step))) - 1))
            seconds = time.perf_counter() - start
            is_best = np.zeros(len(runs), bool)
            for i in np.flatnonzero(active):
                row = {"epoch": epoch, **means(replicas.take(train_sums, i))}
                row |= means(replicas.take(val_sums, i), "val_")
                row |= {"learning_rate": learning_rate, "seconds": seconds}
                is_best[i] = records[i].add(row, experiment.num_images)
            best = keep_where(is_best, state.variables, best)
            sums = no_sums()
            steps_done, seconds_before = 0, 0.0
            if checkpoints.due():
                save(checkpoints, records, {"state": state, "best": best, "sums": sums})
        save(checkpoints, records, {"state": state, "best": best, "sums": sums})

    # Results
    summaries = []
    for i, record in enumerate(records):
        own = {"state": take(state, i), "best": take(best, i), "sums": take(sums, i)}
        if len(runs) > 1:
            with Checkpoints(record.workdir) as own_checkpoints:
                save(own_checkpoints, [record], own)
        variables = own["best"] if record.restores_best else own["state"].variables
        facts = experiment.facts(num_params, len(runs))
        probabilities = experiment.probabilities(variables)
        summaries.append(record.finish(facts, validation.files, probabilities))
    return summaries[0]


def _single_runs(config: ConfigDict, workdir: Path) -> dict[Path, ConfigDict]:
    """Run folder and config of each replica, as if it were trained alone."""
    if config.num_replicas == 1:
        return {workdir: config}
    runs = {}
    for seed in range(config.seed, config.seed + config.num_replicas):
        single = config.copy_and_resolve_references()
        single.seed, single.num_replicas = seed, 1
        runs[workdir / f"seed_{seed}"] = single
    return runs


def _epochs_done(records: Sequence[Record]) -> int:
    return max(len(record.history) for record in records)


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
        f"(seed {config.seed}, learning rate {rate:g}, gradient norm {norm:g})"
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
