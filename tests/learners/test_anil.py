import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.episode import Episode, Examples
from comln.flow.integrator import Integrator
from comln.flow.meta_gradients import Backpropagation, ForwardSensitivity, SpanAdjoint
from comln.learners import ANIL, COMLN, InnerGradient
from comln.learners.base import mean_loss
from tests.learners.tasks import episode, objective_and_gradient
from tests.paper.literal_inner_loops import anil_head, cross_entropy

STEP, STEPS, SIZE, WAYS = 0.4, 5, 4, 3
TASK = episode()


def anil(**settings) -> ANIL:
    return ANIL.init(Identity(SIZE), WAYS, jax.random.key(0), step=STEP, steps=STEPS, **settings)


def comln_with_euler_steps(meta_gradient) -> COMLN:
    start = COMLN.init(
        Identity(SIZE), WAYS, jax.random.key(0), meta_gradient=meta_gradient, integrator=Integrator.euler(step=STEP)
    )
    return eqx.tree_at(lambda m: m.log_horizon, start, jnp.log(STEP * STEPS))


@pytest.mark.parametrize("meta_gradient", [SpanAdjoint(), ForwardSensitivity(), Backpropagation()], ids=repr)
def test_comln_with_euler_steps_is_anil_to_round_off(meta_gradient):
    """Section 3.3 of the paper: the same head, and the same gradient in the start and in all embeddings."""

    def loss(weights, support, query, learner):
        learner = eqx.tree_at(lambda m: m.initial_weights, learner, weights)
        task = Episode(
            Examples(support, TASK.support.labels, TASK.support.mask),
            Examples(query, TASK.query.labels, TASK.query.mask),
        )
        return learner.objective(task)[0]

    ours, theirs = comln_with_euler_steps(meta_gradient), anil()
    np.testing.assert_array_equal(ours.initial_weights, theirs.initial_weights)
    np.testing.assert_allclose(
        ours.adapt(TASK.support)[0].weights, theirs.adapt(TASK.support)[0].weights, rtol=1e-13, atol=1e-14
    )
    arguments = theirs.initial_weights, TASK.support.inputs, TASK.query.inputs
    gradient = eqx.filter_jit(jax.grad(loss, argnums=(0, 1, 2)))
    for a, b in zip(gradient(*arguments, ours), gradient(*arguments, theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.float32
def test_in_single_precision_too():
    ours, theirs = comln_with_euler_steps(SpanAdjoint()), anil()
    _, slope = objective_and_gradient(ours, TASK)
    _, expected = objective_and_gradient(theirs, TASK)
    np.testing.assert_allclose(slope.initial_weights, expected.initial_weights, rtol=2e-5, atol=2e-6)


def test_the_head_and_its_meta_gradient_are_those_of_the_literal_loop():
    model, support = anil(), TASK.support

    def loss(weights, embeddings):
        head = anil_head(weights, embeddings, support.labels, STEP, STEPS)
        return jnp.mean(jnp.stack([cross_entropy(head @ x, y) for x, y in zip(*query(), strict=True)]))

    def query():
        return TASK.query.inputs, TASK.query.labels

    def fast(weights, embeddings):
        learner = eqx.tree_at(lambda m: m.initial_weights, model, weights)
        return learner.objective(Episode(Examples(embeddings, support.labels, support.mask), TASK.query))[0]

    arguments = model.initial_weights, support.inputs
    expected = jax.value_and_grad(loss, argnums=(0, 1))(*arguments)
    found = jax.value_and_grad(fast, argnums=(0, 1))(*arguments)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


def test_without_the_gradients_of_the_steps_the_start_moves_as_the_adapted_head():
    model = anil(inner_gradient=InnerGradient.FIRST_ORDER)
    head, _ = model.adapt(TASK.support)
    slope_of_head = jax.grad(lambda w: mean_loss(TASK.query.inputs @ w.T, TASK.query))(head.weights)
    _, gradient = objective_and_gradient(model, TASK)
    np.testing.assert_allclose(gradient.initial_weights, slope_of_head, rtol=1e-12)
    _, exact = objective_and_gradient(anil(), TASK)
    assert float(jnp.max(jnp.abs(exact.initial_weights - slope_of_head))) > 1e-3


def test_more_steps_go_on_where_fewer_ended():
    few = anil()
    halfway = eqx.tree_at(lambda m: m.initial_weights, few, few.adapt(TASK.support)[0].weights)
    many = dataclasses.replace(few, steps=2 * STEPS)
    np.testing.assert_allclose(many.adapt(TASK.support)[0].weights, halfway.adapt(TASK.support)[0].weights, rtol=1e-12)
