from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from audiojax.errors import InputError
from audiojax.training.checkpoints import Checkpoints


class State(struct.PyTreeNode):
    """Fields of both items of a checkpoint."""

    params: Any
    step: Any
    best: Any = None


def state(value: float = 0.0):
    params = {"0": jnp.full((3, 2), float(value))}
    return State(params, jnp.asarray(7, jnp.int32), {"0": params["0"] + 1})


@pytest.fixture
def saved(tmp_path):
    """A folder with checkpoints 1 and 2."""
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), {"seconds": step / 10})
    return tmp_path / "checkpoints"


def restored(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(state())


def assert_is(found, value):
    tree, metadata = found
    np.testing.assert_array_equal(tree.params["0"], np.full((3, 2), value))
    np.testing.assert_array_equal(tree.best["0"], np.full((3, 2), value + 1))
    assert int(tree.step) == 7
    assert tree.step.dtype == jnp.int32
    assert metadata == {"seconds": value / 10}


def test_the_newest_comes_back_whole(saved):
    assert_is(restored(saved), 2)


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def array_files(step_dir):
    """The files that hold the arrays' data, largest first."""
    files = [path for path in step_dir.rglob("d/*") if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip_a_bit(step_dir):
    path = array_files(step_dir)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(step_dir):
    path = array_files(step_dir)[0]
    path.write_bytes(path.read_bytes()[:-1])


def delete(step_dir):
    array_files(step_dir)[0].unlink()


def lose_the_manifest(step_dir):
    (step_dir / "manifest.json").unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, delete, lose_the_manifest])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    saved, damage, caplog
):
    damage(saved / "2")
    assert_is(restored(saved), 1)
    assert f"{saved / '2'} can't be used" in caplog.text
    assert (saved.parent / "damaged" / "2").is_dir()


def test_an_empty_step_folder_is_not_the_newest(saved):
    (saved / "3").mkdir()
    assert_is(restored(saved), 2)


def test_nothing_to_restore_is_said(tmp_path):
    with pytest.raises(InputError, match="holds no whole checkpoint"):
        restored(tmp_path / "checkpoints")


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"params": {"0": jnp.zeros((3, 4))}}, "0"),
        ({"step": jnp.zeros(())}, "step"),
        ({"params": {"1": jnp.zeros((3, 2))}}, "0"),
    ],
)
def test_another_models_checkpoint_is_refused(saved, other, named):
    with (
        Checkpoints(saved) as checkpoints,
        pytest.raises(InputError, match=f"holds another model.*{named}"),
    ):
        checkpoints.restore(jax.eval_shape(lambda: state().replace(**other)))
