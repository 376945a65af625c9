"""GoogLeNet with the auxiliary heads weighted 0, 0.3 (the paper) and 1 (the study).

python scripts/ablation_auxiliary.py --seeds=3 --jobs=2

With weight 0 nothing trains the auxiliary classifiers, which stay at chance level.
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.AUXILIARY))
