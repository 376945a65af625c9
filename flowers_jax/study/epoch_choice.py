"""What it is worth to report the epoch that was best on the very images one reports on.

A run keeps its probabilities of the validation images after every epoch. Early stopping is applied
to them afterwards: on all images, as the study did, and on one random half, to report on the other.
"""

import io
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from flowers_jax import settings, train, weights
from flowers_jax.data import batches
from flowers_jax.early_stopping import EarlyStopping
from flowers_jax.ops import backend
from flowers_jax.runs import files, run_folder
from flowers_jax.runs.checkpoints import Checkpoints
from flowers_jax.study.runner import Run
from flowers_jax.trainer import Trainer, create_mesh, create_task

CONFIG = "improvement_4_batchnorm"
HEADER = ("seed", "epoch", "accuracy on the choosing half", "accuracy on the other half")
Right = Bool[np.ndarray, "epochs n"]  # whether the answer after an epoch is right


def run(out: Path, changes: dict[str, object], num_halves: int) -> str:
    """Trains what is missing of the run in `out`; writes `halves.csv` and returns the findings."""
    backend.reuse_memory()
    backend.use_compilation_cache()
    files.prepare(out)
    right = train_with_predictions(Run(CONFIG, changes, out))
    patience = settings.default_config().early_stopping.patience
    choices = [choose(right, patience, seed) for seed in range(num_halves)]
    rows = ([seed, *half] for seed, halves in enumerate(choices) for half in halves)
    files.write_csv(out / "halves.csv", HEADER, rows)
    return describe(right, patience, choices)


def train_with_predictions(run: Run) -> Right:
    """Trains to the last epoch, and keeps `epoch_<number>.npy`; killed, it goes on at an epoch."""
    config, out = settings.check(run.load()), run.workdir
    train.finished_summary(config, out)  # refuses other settings
    files.write_json(out / "config.json", run_folder.json_config(config))
    mesh = create_mesh()
    _, data = train.load_data(config, out, mesh)
    task = create_task(config, len(data.class_names), len(data.train))
    trainer = Trainer(task, config.image_size, mesh)
    state = weights.initial_state(config, trainer)
    with Checkpoints(out) as checkpoints:
        restored = checkpoints.restore({"state": state})
        state = restored[0]["state"] if restored else state
        for epoch in range(int(state.step) // len(data.train) + 1, config.max_epochs + 1):
            order = batches.epoch_order(len(data.train.files), config.seed, epoch)
            keys, metrics = trainer.keys(config.seed, epoch), trainer.zero_metrics()
            for batch in data.train.epoch(order):
                state, metrics = trainer.train_step(state, metrics, batch, keys)
            probabilities = trainer.predict(state.variables, data.validation.epoch())
            buffer = io.BytesIO()
            np.save(buffer, probabilities)
            files.write_bytes(out / f"epoch_{epoch}.npy", buffer.getvalue())
            checkpoints.save(int(state.step), {"state": trainer.replicate(state)}, {})
            share = (probabilities.argmax(axis=1) == data.validation.files.labels).mean()
            loss = metrics.averages()["loss"]
            print(f"epoch {epoch}: loss {loss:.4f} val_accuracy {share:.4f}", flush=True)
    saved = [np.load(out / f"epoch_{epoch}.npy") for epoch in range(1, config.max_epochs + 1)]
    return np.stack(saved).argmax(axis=2) == data.validation.files.labels


class Choice(NamedTuple):
    """The epoch that one half of the images chooses, and its accuracy on both halves."""

    epoch: int
    on_choosing: float
    on_other: float


def best_epoch(right: Right, patience: int) -> int:
    """The epoch, from 1, that a run with early stopping on these images reports."""
    stopping = EarlyStopping("max", patience)
    for epoch, accuracy in enumerate(right.mean(axis=1), start=1):
        stopping = stopping.update(epoch, float(accuracy))
        if stopping.should_stop:
            break
    return stopping.best_epoch


def choose(right: Right, patience: int, seed: int) -> tuple[Choice, Choice]:
    """Divides the images at random into two halves, each of which chooses for the other."""
    order = np.random.default_rng(seed).permutation(right.shape[1])

    def of_half(half: Int[np.ndarray, " m"], other: Int[np.ndarray, " k"]) -> Choice:
        epoch = best_epoch(right[:, half], patience)
        answers = right[epoch - 1]
        return Choice(epoch, float(answers[half].mean()), float(answers[other].mean()))

    first, second = np.array_split(order, 2)
    return of_half(first, second), of_half(second, first)


def describe(right: Right, patience: int, choices: list[tuple[Choice, Choice]]) -> str:
    """The findings in sentences; accuracies in percent, deviations over the random halves."""
    epoch, (num_epochs, num_images) = best_epoch(right, patience), right.shape
    study = 100 * float(right[epoch - 1].mean())
    chosen, other = ([50 * sum(half[i] for half in halves) for halves in choices] for i in (1, 2))
    gaps = [a - b for a, b in zip(chosen, other, strict=True)]
    sd = statistics.stdev(other) if len(other) > 1 else 0.0
    honest = statistics.mean(other)
    epochs = sorted(half.epoch for halves in choices for half in halves)
    return (
        f"{num_epochs} epochs, patience {patience}.\n"
        f"Chosen and reported on all {num_images} images: {study:.2f} % (epoch {epoch}).\n"
        f"Chosen on one half and reported on the other, {len(choices)} random halves, both ways: "
        f"{honest:.2f} % (sd {sd:.2f}); on the half that chose {statistics.mean(chosen):.2f} %.\n"
        f"The choice is worth {statistics.mean(gaps):.2f} points on a half; all images give "
        f"{study - honest:.2f} points more than the other half. Chosen epochs: {epochs[0]} to "
        f"{epochs[-1]}, median {statistics.median(epochs):g}."
    )
