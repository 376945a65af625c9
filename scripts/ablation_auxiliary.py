"""GoogLeNet with the auxiliary heads weighted 0 (chance level), 0.3 (the paper), 1 (the study).

python scripts/ablation_auxiliary.py --seeds=3 --jobs=2
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.AUXILIARY))
