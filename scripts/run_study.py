"""Runs the study, or a part of it, and puts its table beside the original's.

python scripts/run_study.py --only='improvement_*,alexnet_sgd' --seeds=3 --jobs=2

Each run goes to runs/<study>/<config>/seed_<s>; the same command again skips what is finished and
continues what was interrupted. The table is in runs/<study>/table.md and table.csv, also when the
command is interrupted. Besides the study's runs --only knows those that the study left out, Adam
and Adagrad with GoogLeNet. With --folds=5 every config is trained once for each of 5 folds of all
images, and the table of runs/folds_5 has mean and deviation over the folds; beside it is the
confusion matrix of all folds together. Several machines with a shared disk divide a study with
--shard=1/3, --shard=2/3 and --shard=3/3.
"""

import clone  # noqa: F401
from absl import flags

from flowers_jax.study import commands

_ONLY = flags.DEFINE_list(
    "only", None, "Configs to run, as patterns: improvement_*,alexnet_sgd; default: the study's."
)
_STUDY = flags.DEFINE_string(
    "study", None, "Name of the folder in runs/; default: study, or study_<N>_epochs."
)
_FOLDS = flags.DEFINE_integer(
    "folds", None, "Cross-validate: train all of so many folds of each config.", lower_bound=2
)


def main() -> None:
    """Runs what the flags say."""
    if _FOLDS.value:
        commands.cross_validate(_ONLY.value, _STUDY.value, _FOLDS.value)
    else:
        commands.study(_ONLY.value, _STUDY.value)


if __name__ == "__main__":
    commands.run(main)
