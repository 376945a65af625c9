"""Cross-entropy against squared error: the study's two plots, and the base CNN trained with each.

python scripts/ablation_loss.py --seeds=3 --jobs=2
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.LOSS))
