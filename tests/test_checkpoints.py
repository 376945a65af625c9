import jax.numpy as jnp
import numpy as np
import pytest

from flowers_jax.process.errors import UserError
from flowers_jax.runs.checkpoints import Checkpoints


def trees(**more):
    return {"state": {"a": jnp.arange(3.0), "b": (jnp.zeros(()), {"c": jnp.ones((2, 2))})}, **more}


@pytest.fixture
def saved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for number in (1, 2):
            checkpoints.save(number, trees(epoch={"sum": jnp.ones(())}), {"number": number})
    return tmp_path


def test_what_was_saved_is_restored(saved):
    with Checkpoints(saved) as checkpoints:
        restored, progress = checkpoints.restore(trees(epoch={"sum": jnp.zeros(())}))
    assert progress == {"number": 2}
    np.testing.assert_array_equal(restored["state"]["a"], np.arange(3))


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (trees(epoch={"sum": jnp.zeros(()), "top2": jnp.zeros(())}), "epoch/top2"),
        (trees(epoch={}), "epoch/sum"),
        ({"state": {"a": jnp.zeros(4), "b": trees()["state"]["b"]}}, "state/a"),
    ],
)
def test_other_arrays_are_told_apart_from_damage_and_nothing_is_deleted(saved, wanted, name):
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(UserError, match=rf"2 is whole, but .*differing: {name}\)"):
            checkpoints.restore(wanted)
        assert checkpoints.restore(trees(epoch={"sum": jnp.zeros(())}))[1] == {"number": 2}


def test_a_checkpoint_of_another_version_is_told_apart_from_a_damaged_one(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees(epoch={"loss": jnp.ones(())}), {})
    (tmp_path / "checkpoints" / "1" / "epoch").rename(tmp_path / "checkpoints" / "1" / "sums")
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(UserError, match=r"1 is whole, but .* version, .*differing: sums\)"):
            checkpoints.restore(trees(epoch={"loss": jnp.zeros(())}))
        checkpoints.restore(trees())  # what is common is read


def test_a_damaged_checkpoint_gives_way_to_the_one_before(saved):
    for path in (saved / "checkpoints" / "2" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with Checkpoints(saved) as checkpoints:
        _, progress = checkpoints.restore(trees(epoch={"sum": jnp.zeros(())}))
    assert progress == {"number": 1}
