"""The snippets of `docs/extending.md`, executed in order."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from flowers_jax import metrics, models, optimizers
from flowers_jax.data import augment
from flowers_jax.runs import history, run_folder

SNIPPETS = re.findall(r"```python\n(.*?)```", Path("docs/extending.md").read_text("utf-8"), re.S)


def test_a_snippet_has_at_most_15_lines_of_code():
    assert len(SNIPPETS) == 7
    lines = [[line for line in snippet.splitlines() if line] for snippet in SNIPPETS]
    assert max(map(len, lines)) <= 15


def test_the_snippets_work(tmp_path, monkeypatch, capsys):
    tables = (models.MODELS, optimizers.OPTIMIZERS, optimizers.SCHEDULES)
    for table in (*tables, augment.AUGMENTATIONS, metrics.METRICS):
        for name in ("small", "lion", "linear", "brighten", "top2_accuracy"):
            monkeypatch.setitem(table, name, None)  # and take it out again afterwards
            monkeypatch.delitem(table, name)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for k, name in enumerate(["dark", "light"]):
        Path("photographs", name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 100, (32, 32, 3)) + 150 * k
            Image.fromarray(pixels.astype(np.uint8)).save(f"photographs/{name}/{i}.png")
    namespace = {}
    for snippet in SNIPPETS:
        exec(snippet, namespace)
    shown = capsys.readouterr().out
    assert "top2_accuracy 1.0000 val_loss" in shown
    assert "val_top2_accuracy 1.0000" in shown
    rows = history.read(Path("runs/width_16"))
    assert rows[0]["val_top2_accuracy"] == rows[0]["top2_accuracy"] == 1  # of two classes
    stored = run_folder.read_config(Path("runs/width_16"))
    assert stored["optimizer"]["name"] == "lion"
    assert (stored["optimizer"]["b1"], stored["optimizer"]["weight_decay"]) == (0.9, 0.001)
    assert stored["optimizer"]["beta_1"] is None
    picture = np.asarray(Image.open("runs/width_16/augmented.png").convert("RGB"))
    assert picture.std() > 20
    assert namespace["run"].predict("photographs/dark/0.png").shape == (1, 2)
