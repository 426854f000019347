import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.episode import Episode
from comln.learners import Leap, PathMeasure
from comln.learners.base import mean_loss
from tests.learners.tasks import episode, examples, objective_and_gradient, vector_of
from tests.paper.literal_inner_loops import leap_increment

TASK, STEPS = episode(), 4


def leap(measure: PathMeasure, step: float) -> Leap:
    return Leap.init(Identity(4), 3, jax.random.key(0), step=step, steps=STEPS, measure=measure)


# A step of 50 is so long that the loss rises on the way: the stabiliser is at work.
@pytest.mark.parametrize("step", [0.3, 50.0])
@pytest.mark.parametrize("measure", list(PathMeasure))
def test_the_gradient_is_that_of_the_segments_with_their_ends_frozen(measure, step):
    model = leap(measure, step)
    start, back = vector_of(model.network)

    def loss(vector):
        return mean_loss(back(vector)(TASK.support.inputs), TASK.support)

    increment, measured = leap_increment(start, step, STEPS, loss, measure.value)
    value, gradient = objective_and_gradient(model, TASK)
    np.testing.assert_allclose(vector_of(gradient.network)[0], increment, rtol=1e-9, atol=1e-12)
    assert float(value) == pytest.approx(measured, rel=1e-9)


def test_the_loss_does_rise_on_the_way_with_long_steps():
    support, values = TASK.support, []
    for steps in range(STEPS + 1):
        model = eqx.tree_at(lambda m: m.steps, leap(PathMeasure.LENGTH, 50.0), steps)
        values.append(float(mean_loss(model.adapt(support)[0](support.inputs), support)))
    assert any(ahead > here for here, ahead in itertools.pairwise(values))


def test_no_query_example_takes_part():
    model, other = leap(PathMeasure.LENGTH, 0.3), Episode(TASK.support, examples(seed=77))
    first, second = (objective_and_gradient(model, task) for task in (TASK, other))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_following_the_gradient_shortens_the_path():
    model = leap(PathMeasure.LENGTH, 0.3)
    value, gradient = objective_and_gradient(model, TASK)
    nearer = eqx.apply_updates(model, jax.tree.map(lambda g: -0.05 * g, gradient))
    assert float(objective_and_gradient(nearer, TASK)[0]) < float(value)


def test_where_the_loss_is_flat_the_path_has_no_length_and_the_gradient_is_zero():
    model = Leap.init(Identity(4), 2, jax.random.key(0), step=0.3, steps=STEPS)
    task = episode(ways=2)
    flat = eqx.tree_at(lambda t: t.support.inputs, task, jnp.zeros_like(task.support.inputs))
    flat = eqx.tree_at(lambda t: t.support.labels, flat, jnp.full_like(task.support.labels, 0.5))
    value, gradient = objective_and_gradient(model, flat)
    assert float(value) == 0.0
    assert all(bool(jnp.all(x == 0)) for x in jax.tree.leaves(gradient))
