"""Improvement 5 with 0, 80 (the study, one class of five) and 400 (all) validation images leaked.

python scripts/ablation_leak.py --seeds=3 --jobs=2
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.LEAK))
