"""What the study's leak was worth: improvement 5 with 0, 80 and 400 leaked validation images.

python scripts/ablation_leak.py

80 images are one class of five, as in the study; 400 are all that are held out.
"""

import ablation

VARIANTS = {
    f"leaked_{count}": ("improvement_5_augmentation", {"data.leaked": count})
    for count in (0, 80, 400)
}

if __name__ == "__main__":
    ablation.main("Improvement 5 with leaked validation images", VARIANTS)
