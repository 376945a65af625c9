"""The four optimizers on the base CNN, each over four learning rates; it also draws rates.png.

python scripts/ablation_optimizers.py --seeds=3 --jobs=2
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.OPTIMIZERS))
