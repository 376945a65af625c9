import math

from flowers_jax.runs import history


def test_a_history_is_read_back_in_full_precision(tmp_path):
    columns = history.columns(("main", "aux1"))
    rows = [{c: math.pi / (1 + i) for i, c in enumerate(columns)} | {"epoch": 1}]
    history.write(tmp_path, rows, ("main", "aux1"))
    assert history.read(tmp_path) == rows
    header = (tmp_path / "history.csv").read_text().splitlines()[0]
    assert header.startswith("epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds,")
    assert "val_aux1_accuracy" in header
