"""Evaluates a run on any labelled image folder, by the names of its classes.

`python -m flowers_jax.evaluate --workdir=RUN DIR`
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from flowers_jax import run
from flowers_jax.process import command
from flowers_jax.process.errors import UserError
from flowers_jax.runs import evaluate, files

_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder with the weights.")
_NAME = flags.DEFINE_string("name", None, "Of the folder in RUN/evaluations; default: DIR's own.")


def main(arguments: Sequence[str]) -> None:
    """Prints metrics and report, and writes them to `RUN/evaluations/<name>/`."""
    if _WORKDIR.value is None or len(arguments) != 2:
        raise UserError("give a run and a labelled image folder: --workdir=runs/quickstart DIR.")
    name = _NAME.value or ""
    if name != Path(name).name:
        raise UserError(f"--name={name} is a path; give a name.")
    root = Path(arguments[1]).expanduser().resolve()
    trained = run.load(_WORKDIR.value)
    target = trained.workdir / "evaluations" / (name or root.name)
    old = files.read_json(target / "metrics.json")
    if old and old["folder"] != str(root):
        raise UserError(f"{target} holds results of {old['folder']}; give another --name.")
    evaluation = trained.evaluate(root)
    files.prepare(target)
    metrics = {"num_images": len(evaluation.images), **evaluation.metrics}
    evaluate.write(target, evaluation, f"{trained.config.model} on {root.name}")
    files.write_json(target / "metrics.json", {"folder": str(root), **metrics})
    print(evaluation.report)
    print(", ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
    print(f"results in {target}")


if __name__ == "__main__":
    command.run(main)
