"""Losses and gradients over several devices against those of one; run in processes of their own.

Usage: python -m tests.spread FILE [COORDINATOR PROCESS]; with these, it is one of two processes.
"""

import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln import hosts
from comln.backbones import Conv4, Normalisation
from comln.data.batches import make_batch, to_episodes
from comln.devices import over_tasks, replicate, share_out, task_mesh, to_this_process
from comln.episodic import meta_loss
from comln.learners import ANIL, COMLN
from tests.training import sampler

TASKS = 4


@eqx.filter_jit
def loss_and_gradient(learner, batch, statistics, mesh):
    def loss(learner):
        episodes = to_episodes(batch, None, jax.random.key(0))
        return meta_loss(learner, episodes, statistics, Normalisation.BATCH, jax.random.key(1), mesh)

    (value, (moved, info)), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(learner)
    return value, gradient, moved, info.accuracy


def difference(learner, mesh) -> dict[str, float]:
    """Return the loss on one device, and how much loss, gradient and statistics differ over several."""
    own = TASKS // jax.process_count()
    begin = own * jax.process_index()
    statistics = learner.backbone.initial_statistics()
    one = loss_and_gradient(learner, make_batch(sampler(), 0, range(TASKS)), statistics, None)
    spread = loss_and_gradient(
        replicate(learner, mesh),
        share_out(make_batch(sampler(), 0, range(begin, begin + own)), mesh),
        replicate(statistics, mesh),
        mesh,
    )
    assert spread[0].sharding.device_set == set(mesh.devices.flat)
    spread = to_this_process(spread)
    largest = max(float(np.abs(np.asarray(x)).max()) for x in jax.tree.leaves(one[1]) if isinstance(x, jax.Array))
    return {
        "loss": float(one[0]),
        "largest_gradient": largest,
        "gap": gap(one[:2], spread[:2]),
        "statistics_gap": gap(one[2:], spread[2:]),
    }


def gap(one, spread) -> float:
    """Return by how much the arrays differ at most."""
    return max(
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(spread), strict=True)
        if isinstance(a, jax.Array)
    )


def inner_gradients(mesh) -> list[float]:
    """Return where tasks 0, 1, 2, ... get by a step from a shared 1 down the slope of number x parameter."""
    numbers = np.arange(float(TASKS // jax.process_count())) + TASKS // jax.process_count() * jax.process_index()

    def one_task(shared, number):
        return shared - jax.grad(lambda x: number * x)(shared)

    placed = replicate(jnp.ones(()), mesh), share_out(numbers.astype(np.float32), mesh)
    there = jax.jit(over_tasks(one_task, mesh))(*placed)
    mean = jax.jit(lambda x: jnp.sum(x * jnp.arange(TASKS)))(there)
    return [float(mean)]


def main(path: str, *place: str) -> None:
    """Compute all and write it, in the first process."""
    if place:
        hosts.join(hosts.Hosts(place[0], 2, int(place[1])))
    mesh = task_mesh(jax.local_device_count())
    assert mesh.size > 1
    backbone, key = Conv4.init(16, 1, 4, jax.random.key(0)), jax.random.key(1)
    found = {
        "devices": mesh.size,
        "comln": difference(COMLN.init(backbone, ways=3, key=key, initial_horizon=5.0), mesh),
        "anil": difference(ANIL.init(backbone, ways=3, key=key), mesh),
        "inner": inner_gradients(mesh),
        "told": hosts.text_from_first(f"by {jax.process_index()}"),
        "any": hosts.any_of(jax.process_index() == jax.process_count() - 1),
        "zero": float(np.signbit(np.asarray(hosts.from_first(jnp.array(-0.0))))),
    }
    if hosts.is_first():
        Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
