"""What the study's leak was worth; improvement 5 with 0, 80 and 400 leaked validation images.

python scripts/ablation_leak.py --seeds=3 --jobs=2

80 images are one class of five, as in the study; 400 are all that are held out.
"""

import clone  # noqa: F401

from flowers_jax.study import commands, sweeps

if __name__ == "__main__":
    commands.run(lambda: commands.ablation(sweeps.LEAK))
