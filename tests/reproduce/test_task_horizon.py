import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from comln.backbones import Identity
from comln.episode import Episode, Examples
from comln.learners import COMLN, InitialHead
from comln.reproduce import own_horizons, task_horizon
from comln.reproduce.own_horizons import HORIZONS, KINDS, Kind
from comln.reproduce.workspace import Budget, Workspace


def tasks(count=6, ways=3, shots=4, size=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.eye(ways), (shots, 1))
    centres = rng.normal(size=(count, ways, size))

    def examples():
        noise = 0.8 * rng.normal(size=(count, ways * shots, size))
        together = jnp.asarray(np.einsum("mn,tnd->tmd", labels, centres) + noise)
        return Examples(together, jnp.tile(labels, (count, 1, 1)), jnp.ones((count, ways * shots)))

    return Episode(examples(), examples())


def test_noise_replaces_the_share_of_labels_by_wrong_ones():
    clean = tasks(count=200)
    noisy = own_horizons._with_noise(clean, 0.3, (0, 1))
    before, after = (np.asarray(x.support.labels).argmax(-1) for x in (clean, noisy))
    assert np.mean(before != after) == pytest.approx(0.3, abs=0.03)
    np.testing.assert_array_equal(noisy.support.labels.sum(axis=-1), 1.0)
    np.testing.assert_array_equal(noisy.query.labels, clean.query.labels)
    wrong = after[before != after]
    assert np.all(np.bincount(wrong, minlength=3) > 0.2 * len(wrong))
    same = own_horizons._with_noise(clean, 0.0, (0, 1))
    np.testing.assert_array_equal(same.support.labels, clean.support.labels)


def test_the_best_horizon_is_the_one_of_least_loss_on_the_grid():
    few = tasks()
    best = own_horizons._best(few)
    learner = COMLN.init(Identity(5), 3, jax.random.key(0), initial_head=InitialHead.ZERO)
    losses = []
    for horizon in HORIZONS:
        at = dataclasses.replace(learner, log_horizon=jnp.log(horizon))
        losses.append(own_horizons._measure(at, few).losses)
    np.testing.assert_allclose(best.losses, np.min(losses, axis=0), rtol=1e-3)
    assert np.mean(best.horizons == HORIZONS[np.argmin(losses, axis=0)]) > 0.8


def test_only_the_horizon_is_learned():
    learner = COMLN.init(Identity(5), 3, jax.random.key(0), 10.0, initial_head=InitialHead.LEARNED)
    of_each = dict.fromkeys(KINDS, tasks())
    with jax.numpy_dtype_promotion("standard"):
        trained = own_horizons._learn_horizons(learner, of_each, 3, 0, optax.adam(1e-2), lambda _: None)
    np.testing.assert_array_equal(trained.initial_weights, learner.initial_weights)
    assert float(trained.log_horizon) != float(learner.log_horizon)


def test_kinds_are_named_for_people():
    assert str(Kind(5, 1, 0.0)) == "5-way 1-shot" and "30 % of labels wrong" in str(Kind(20, 10, 0.3))


@pytest.mark.slow
def test_the_whole_comparison_runs_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(own_horizons.SPENDING, Budget.SMOKE, own_horizons.Spending(0.2, 4, 10, 4, KINDS[:2]))
    with jax.numpy_dtype_promotion("standard"):
        result = task_horizon.compute(Workspace(tmp_path / "parts", Budget.SMOKE))
    assert [row.kind for row in result.rows] == [*map(str, KINDS[:2]), "all"]
    for row in result.rows:
        assert row.oracle_loss <= row.shared_loss + 1e-2 and 0 <= row.own[0] <= 1
    again = task_horizon.compute(Workspace(tmp_path / "parts", Budget.SMOKE))
    assert again.rows == result.rows
    paths = task_horizon.write(result, tmp_path)
    assert all(path.exists() for path in paths)
    assert json.loads(paths[0].read_text())["target"] == "task-horizon"
