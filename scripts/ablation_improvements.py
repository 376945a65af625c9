"""The study's improvements of the base CNN: as made there, each alone, and added one by one.

python scripts/ablation_improvements.py --seeds=3 --jobs=2
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.IMPROVEMENTS))
