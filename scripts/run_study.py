"""Runs the study, or a part of it, and puts its table beside the original's.

python scripts/run_study.py --only='improvement_*,alexnet_sgd' --seeds=3 --jobs=2

Each run goes to runs/<study>/<config>/seed_<s>; the same command again skips what is finished and
continues what was interrupted. The table is in runs/<study>/table.md and table.csv, also when the
command is interrupted. Besides the study's runs --only knows those that the study left out, Adam
and Adagrad with GoogLeNet. Several machines with a shared disk divide a study with --shard=1/3,
--shard=2/3 and --shard=3/3.
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

if __name__ == "__main__":
    commands.run(lambda: commands.study(_ONLY.value, _STUDY.value))
