"""GoogLeNet with the auxiliary heads weighted 0, 0.3 (the paper) and 1 (the study).

python scripts/ablation_auxiliary.py

With weight 0 nothing trains the auxiliary classifiers themselves, and theirs is chance.
"""

from pathlib import Path

import ablation
import runner

from flowers_jax import results

WEIGHTS = (0.0, 0.3, 1.0)
VARIANTS = {f"weight_{w}": ("googlenet_sgd", {"aux_weight": w}) for w in WEIGHTS}
HEADS = ("main", "aux1", "aux2")


def heads(folder: Path) -> None:
    """Writes `heads.md`: the best validation accuracy of each head, in percent."""
    rows = []
    for name in VARIANTS:
        found = sorted(path.parent for path in (folder / name).glob("seed_*/summary.json"))
        workdirs = [workdir for workdir in found if not results.is_set_aside(workdir)]
        if workdirs:
            shares = [ablation.best(workdirs, f"val_{head}_accuracy") for head in HEADS]
            rows.append([name, *(f"{100 * share:.2f}" for share in shares)])
    results.write_text(folder / "heads.md", runner.markdown(["variant", *HEADS], rows))


if __name__ == "__main__":
    ablation.main("GoogLeNet: weight of the auxiliary heads", VARIANTS, heads)
