import json
import logging
import os
import shutil
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.checkpoint import CheckpointError, Checkpoints
from comln.meta_train import start_training
from comln.optimiser import Adam
from tests.training import STEPS, learner, train


def template():
    model = learner()
    return start_training(model, Adam().build(model, STEPS))


def with_initial_weights(weights):
    return eqx.tree_at(lambda state: state.learner.initial_weights, template(), weights)


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def saved(folder, *steps, best=None) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(step, template(), {"step": step}, best)
    checkpoints.finish()
    return checkpoints


def test_a_state_comes_back_bit_for_bit(tmp_path):
    state, checkpoints = train(), Checkpoints(tmp_path)
    checkpoints.save(6, state, {"seed": 0, "score": 0.1 + 0.2})
    checkpoints.finish()
    newest = checkpoints.restore_newest(template())
    assert newest is not None
    restored, metadata = newest
    assert metadata == {"seed": 0, "score": 0.1 + 0.2} and jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(arrays(state), arrays(restored), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_the_newest_two_and_the_best_are_kept_and_nothing_half_written(tmp_path):
    checkpoints = saved(tmp_path, 1, 2, 30, 44)
    assert checkpoints.steps() == [30, 44]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["30", "44"]
    assert saved(tmp_path, 50, 60, 70, best=44).steps() == [44, 60, 70]


def test_saving_a_step_again_replaces_it_and_what_came_after(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    checkpoints.save(1, template(), {"step": "again"})
    checkpoints.finish()
    restored = checkpoints.restore_newest(template())
    assert checkpoints.steps() == [1] and restored is not None and restored[1] == {"step": "again"}


def test_what_a_killed_process_left_half_written_is_ignored_and_cleared_away(tmp_path):
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "1" / "state", tmp_path / "2.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp")
    restored = checkpoints.restore_newest(template())
    assert restored is not None and restored[1] == {"step": 1}
    saved(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


def damage(folder, how):
    files = [path for path in folder.rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    match how:
        case "truncated":
            largest.write_bytes(largest.read_bytes()[:1000])
        case "bits are flipped":
            for path in folder.glob("state/**/d/*"):
                content = bytearray(path.read_bytes())
                for place in range(len(content) // 16, len(content), 1 + len(content) // 16):
                    content[place] ^= 1  # in several places: what lies in one may be padding
                path.write_bytes(content)
        case "its record is another":
            record = folder / "record" / "metadata"
            assert b'"step": 2' in record.read_bytes()
            record.write_bytes(record.read_bytes().replace(b'"step": 2', b'"step": 3'))
        case "the form of an array is another":
            other = Checkpoints(folder.parent.parent / "other")
            other.save(2, with_initial_weights(jnp.zeros((7, 4))), {})
            other.finish()
            shutil.rmtree(folder / "state")
            shutil.copytree(other.folder / "2" / "state", folder / "state")
        case "all files are empty":
            for path in files:
                path.write_bytes(b"")
        case "a part is gone":
            shutil.rmtree(folder / "state")
        case "all is gone but the folder":
            shutil.rmtree(folder)
            folder.mkdir()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "bits are flipped",
        "its record is another",
        "the form of an array is another",
        "all files are empty",
        "a part is gone",
        "all is gone but the folder",
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning(tmp_path, caplog, how):
    checkpoints = saved(tmp_path / "checkpoints", 1, 2)
    damage(tmp_path / "checkpoints" / "2", how)
    with caplog.at_level(logging.WARNING, "comln"):
        newest = checkpoints.restore_newest(template())
    assert newest is not None and newest[1] == {"step": 1} and "step 2 is damaged" in caplog.text
    checkpoints.save(2, template(), {"step": "again"})
    checkpoints.finish()
    newest = checkpoints.restore_newest(template())
    assert newest is not None and newest[1] == {"step": "again"}


def test_arrays_of_another_form_are_named_in_one_line(tmp_path, capfd):
    checkpoints = saved(tmp_path, 1)
    other = with_initial_weights(jnp.zeros((7, 4)))
    with pytest.raises(
        CheckpointError, match=r"step 1 .* learner.initial_weights is float.*\[3, .*\[7, 4\] in this run"
    ):
        checkpoints.restore_newest(other)
    with pytest.raises(CheckpointError, match=r"learner.backbone.* nothing in this run"):
        checkpoints.restore_newest({"step": jnp.zeros(())})
    assert "Traceback" not in capfd.readouterr().err


def test_with_no_readable_checkpoint_left_the_error_says_what_to_do(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(CheckpointError, match="another --out"):
        Checkpoints(tmp_path).restore_newest(template())
    assert Checkpoints(tmp_path / "none").restore_newest(template()) is None


def test_a_folder_that_cannot_be_written_gives_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"could not be written.*last good checkpoint is unharmed"):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, template(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_program_that_reads_a_checkpoint_sees_no_remarks_of_libraries(tmp_path):
    saved(tmp_path, 1)
    script = """
import pathlib, sys
import numpy as np
from comln.checkpoint import Checkpoints
from tests.test_checkpoint import template
assert Checkpoints(pathlib.Path(sys.argv[1])).restore_newest(template()) is not None
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "JAX_ENABLE_X64": "1"}
    )
    assert done.stderr == "" and done.stdout == ""


FULL_DISK = """
import pathlib, resource, signal, sys, time
import numpy as np
from comln.checkpoint import CheckpointError, Checkpoints
checkpoints, state = Checkpoints(pathlib.Path(sys.argv[1])), {"x": np.random.default_rng(0).random(100_000)}
for step in (4, 10, 12):
    checkpoints.save(step, state, {}, best=4)
if sys.argv[2] == "resumed":
    checkpoints.finish()
while checkpoints.steps() != [4, 10, 12]:
    time.sleep(0.05)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    checkpoints.save(14, state, {}, best=14)
    checkpoints.finish()
except CheckpointError as error:
    print(error)
print(checkpoints.steps(), checkpoints.restore_newest(state)[0]["x"].shape)
"""


@pytest.mark.parametrize("how", ["in one go", "resumed"])
def test_a_disk_that_is_full_gives_one_line_and_keeps_the_last_good_state_and_the_best_so_far(tmp_path, how):
    """The limit on the size of files makes writing fail as a full disk does."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)  # what hangs
    message, rest = done.stdout.strip().splitlines()
    assert "step 14 could not be written" in message and "File too large" in message and "Free space" in message
    assert rest == "[4, 10, 12] (100000,)"


def test_a_checkpoint_of_another_precision_is_told_with_the_remedy(tmp_path):
    checkpoints = saved(tmp_path, 1)
    with jax.enable_x64(False), pytest.raises(CheckpointError, match=r"step 1 .* double precision .*JAX_ENABLE_X64=1"):
        checkpoints.restore_newest(template())


def test_a_checkpoint_of_an_older_version_is_told_from_a_damaged_one(tmp_path, caplog):
    checkpoints = saved(tmp_path, 1)
    (path,) = (path for path in (tmp_path / "1" / "record").iterdir() if path.name == "metadata")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: record[name] for name in ("metadata", "checksums")}))
    with pytest.raises(CheckpointError, match=r"step 1 .* was written by an older version .*`comln export`"):
        checkpoints.restore_newest(template())
    assert not caplog.records
