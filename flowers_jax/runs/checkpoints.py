"""Checkpoints of a run, with orbax: its whole state, and the weights of its best epoch."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from flowers_jax.process.errors import UserError
from flowers_jax.runs import files

log = logging.getLogger(__name__)

# The train state, params and batch_stats of the best epoch, and the metrics of the epoch under way
# (orbax reserves the name `metrics`).
TREES = ("state", "best", "epoch")
Trees = dict[str, Any]  # arrays, by these names


class Checkpoints:
    """The checkpoints in a run folder; the two newest are kept.

    They are written in the background; leaving the `with` block waits for the last.

    Args:
      workdir: the run folder.
      every_minutes: least age of the last checkpoint for `due`.
      read_only: write and delete nothing.
    """

    def __init__(
        self, workdir: Path, every_minutes: float = 0.0, *, read_only: bool = False
    ) -> None:
        self._every_seconds = 60 * every_minutes
        self._last_save = time.monotonic()
        self._read_only = read_only
        with _without_warnings():
            self._manager = ocp.CheckpointManager(
                (workdir / "checkpoints").absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=LatestN(2), read_only=read_only, create=not read_only
                ),
                item_handlers={
                    **{item: ocp.StandardCheckpointHandler() for item in TREES},
                    "progress": ocp.JsonCheckpointHandler(),
                },
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        with _plainly(self._manager.directory):
            self._manager.wait_until_finished()
        self._manager.close()

    def due(self) -> bool:
        """Whether the last one is older than `every_minutes`."""
        return time.monotonic() - self._last_save >= self._every_seconds

    def save(self, number: int, trees: Trees, progress: dict[str, Any]) -> None:
        """Saves array trees and, as JSON, `progress` under a number that grows; each number once.

        Raises:
          UserError: this one, or the one before, cannot be written.
        """
        if number == self._manager.latest_step():
            return
        num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(trees))
        files.require_space(self._manager.directory, num_bytes)
        with _plainly(self._manager.directory):
            self._manager.save(
                number,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
                    # As one string: orbax' JSON would refuse NaN, which a history may hold.
                    progress=ocp.args.JsonSave({"json": json.dumps(progress)}),
                ),
            )
        self._last_save = time.monotonic()

    def restore(self, trees: Trees) -> tuple[Trees, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None if there is none at all.

        Newer ones that cannot be read are named in the log and, unless `read_only`, deleted.

        Args:
          trees: arrays or `jax.ShapeDtypeStruct`s of the expected shapes and shardings.

        Raises:
          UserError: there are some, and none can be read, or they hold other arrays.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, trees)
        unreadable = {}
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(
                    number,
                    args=ocp.args.Composite(
                        **{name: ocp.args.StandardRestore(tree) for name, tree in abstract.items()},
                        progress=ocp.args.JsonRestore(),
                    ),
                )
                progress = json.loads(restored.progress["json"])
            except (ValueError, KeyError, OSError, TypeError) as error:
                self._require_same_arrays(number, abstract)
                unreadable[number] = str(error).splitlines()[0][:200]
                continue
            for broken, reason in unreadable.items():
                path = self._manager.directory / str(broken)
                log.warning(
                    "the checkpoint %s cannot be read (%s); taking %d", path, reason, number
                )
                if not self._read_only:
                    self._manager.delete(broken)
            return {name: restored[name] for name in trees}, progress
        if unreadable:
            number, reason = next(iter(unreadable.items()))
            raise UserError(
                f"no checkpoint in {self._manager.directory} can be read ({number}: {reason}); "
                "train anew with --restart."
            )
        return None

    def _require_same_arrays(self, number: int, trees: Trees) -> None:
        """Raises UserError if an undamaged checkpoint holds other arrays than these."""
        path = self._manager.directory / str(number)
        try:
            differing = sorted(
                {item.name for item in path.iterdir() if item.is_dir()} - {*TREES, "progress"}
            )
            if not differing:
                stored = self._manager.item_metadata(number)
                theirs = _shapes({name: stored[name].tree for name in trees})
                differing = [name for name, _ in sorted(_shapes(trees).items() ^ theirs.items())]
        except Exception:  # damaged, in any way
            return
        if differing:
            raise UserError(
                f"the checkpoint {path} is whole, but was written by another version, or with "
                "another model, optimizer or table of metrics (differing: "
                f"{', '.join(dict.fromkeys(differing[:5]))}); take the code and settings that "
                "wrote it, or train anew with --restart."
            )


def _shapes(tree: Trees) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays, by their path."""

    def name(key: Any) -> str:  # noqa: ANN401
        return str(next(getattr(key, a) for a in ("key", "name", "idx") if hasattr(key, a)))

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"/".join(map(name, path)): tuple(leaf.shape) for path, leaf in leaves}


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """orbax warns that what is opened to be read cannot be written."""
    logger = logging.getLogger("absl")

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


@contextlib.contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Turns the file system's errors into a sentence."""
    try:
        with files.full_disk_named(folder):
            yield
    except (OSError, ValueError) as error:
        raise UserError(
            f"a checkpoint in {folder} cannot be written ({str(error).splitlines()[0][:200]}); "
            "the one before is intact."
        ) from error
