"""Trains one run: `python -m flowers_jax.main --config=configs/googlenet_sgd.py`."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from flowers_jax import settings
from flowers_jax.ops import backend
from flowers_jax.process import command, distributed
from flowers_jax.process.errors import UserError
from flowers_jax.runs import run_folder
from flowers_jax.train import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="Config file; its values can be overridden: --config.seed=1.",
    lock_config=False,  # `settings.check` names what is no setting
    accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder; default: runs/<name of the config>.")
_RESTART = flags.DEFINE_bool("restart", False, "Set an existing run folder aside; begin anew.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Train together with other processes, which start the same command."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first process; TPU pods and SLURM know it."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes; as above.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0; as above.")


def main(arguments: Sequence[str]) -> None:
    """Runs what the flags say."""
    if len(arguments) > 1:
        raise UserError(f"unexpected argument {arguments[1]!r}; settings are --config.KEY=VALUE.")
    if not flags.FLAGS["config"].present:
        raise UserError("which run? Give --config=configs/quickstart.py or another config.")
    path = Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    if not path.is_file():
        raise UserError(f"there is no config {path}; the runs of the study are in configs/.")
    workdir = Path(_WORKDIR.value or _CONFIG.value.workdir or Path("runs") / path.stem).expanduser()
    backend.reuse_memory()
    backend.use_compilation_cache()
    for flag in (_COORDINATOR, _NUM_PROCESSES, _PROCESS_ID):
        if flag.value is not None and not _DISTRIBUTED.value:
            raise UserError(f"--{flag.name}={flag.value} needs --distributed.")
    if _DISTRIBUTED.value:
        distributed.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if _RESTART.value:
        settings.check(_CONFIG.value)  # a run is set aside only for one that can begin
        run_folder.set_aside(workdir)
    with distributed.errors():
        train_and_evaluate(_CONFIG.value, workdir)


if __name__ == "__main__":
    command.run(main)
