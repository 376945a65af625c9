"""The four optimizers on the base CNN, each over four learning rates around the study's 0.001.

python scripts/ablation_optimizers.py --seeds=3 --jobs=2

Besides the table and the figure of all ablations it draws rates.png.
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.OPTIMIZERS))
