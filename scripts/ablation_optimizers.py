"""The four optimizers on the base CNN, each over four learning rates around the study's 0.001.

python scripts/ablation_optimizers.py
"""

import ablation

RATES = {
    "adam": (0.0001, 0.0003, 0.001, 0.003),
    "adadelta": (0.001, 0.01, 0.1, 1.0),
    "adagrad": (0.001, 0.003, 0.01, 0.03),
    "sgd": (0.001, 0.003, 0.01, 0.03),
}
VARIANTS = {
    f"{name}_{rate}": (
        "improvement_0_base",
        {"optimizer.name": name, "optimizer.learning_rate": rate},
    )
    for name, rates in RATES.items()
    for rate in rates
}

if __name__ == "__main__":
    ablation.main("Base CNN: optimizers and learning rates", VARIANTS)
