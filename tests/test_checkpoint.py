import logging

import jax
import numpy as np
import pytest

from comln.checkpoint import CheckpointError, Checkpoints
from comln.meta_train import start_training
from comln.optimiser import Adam
from tests.training import STEPS, learner, train


def template():
    model = learner()
    return start_training(model, Adam().build(model, STEPS))


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state, checkpoints = train(), Checkpoints(tmp_path)
    checkpoints.save(6, state, {"seed": 0})
    newest = checkpoints.restore_newest(template())
    assert newest is not None
    restored, metadata = newest
    assert metadata == {"seed": 0} and jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(arrays(state), arrays(restored), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_the_newest_two_are_kept_and_nothing_half_written(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 30, 4):
        checkpoints.save(step, template(), {})
    assert checkpoints.steps() == [4, 30]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004.npz", "step-00000030.npz"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(tmp_path, caplog, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, template(), {"step": 1})
    checkpoints.save(2, template(), {"step": 2})
    newest = tmp_path / "step-00000002.npz"
    match damage:
        case "truncated":
            newest.write_bytes(newest.read_bytes()[:1000])
        case "empty":
            newest.write_bytes(b"")
        case "foreign":
            np.savez(newest, metadata=np.frombuffer(b"{}", np.uint8), other=np.zeros(3))
    with caplog.at_level(logging.WARNING, "comln"):
        newest = checkpoints.restore_newest(template())
    assert newest is not None and newest[1] == {"step": 1} and "step 2 is damaged" in caplog.text


def test_with_no_readable_checkpoint_left_the_error_says_what_to_do(tmp_path, caplog):
    (tmp_path / "step-00000001.npz").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="another --out"):
        Checkpoints(tmp_path).restore_newest(template())
    assert Checkpoints(tmp_path / "none").restore_newest(template()) is None


def test_a_folder_that_cannot_be_written_gives_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"could not be written.*last good checkpoint is unharmed"):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, template(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
