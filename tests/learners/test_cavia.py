import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.backbones import FilmConv4, Normalisation
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.learners import CAVIA, InnerGradient
from comln.learners.base import mean_loss
from tests.learners.tasks import objective_and_gradient

WAYS, PIXELS, CONTEXT = 2, 16, 5


def model(**settings) -> CAVIA:
    return CAVIA(network=FilmConv4.init(PIXELS, 1, 4, WAYS, CONTEXT, jax.random.key(0)), **settings)


def task(seed: int) -> Episode:
    def examples(key):
        images = jax.random.normal(key, (4, PIXELS, PIXELS, 1))
        labels = jnp.eye(WAYS)[jnp.arange(4) % WAYS]
        return Examples(images + labels[:, :1, None, None], labels, jnp.ones(4))

    return Episode(*map(examples, jax.random.split(jax.random.key(seed))))


@eqx.filter_jit
def adapt(learner: CAVIA, support: Examples):
    return learner.adapt(support)[0]


def test_every_task_starts_from_a_context_of_zero():
    learner, first, second = model(), task(1), task(2)
    alone = adapt(learner, first.support)
    adapt(learner, second.support)
    again = adapt(learner, first.support)
    np.testing.assert_array_equal(alone.context, again.context)
    untouched = adapt(model(steps=0), first.support)
    np.testing.assert_array_equal(untouched.context, jnp.zeros(CONTEXT))


@eqx.filter_jit
@eqx.filter_grad
def gradient_of_batch(learner: CAVIA, batch: Episode):
    return meta_loss(learner, batch, (), Normalisation.BATCH, jax.random.key(0))[0]


def test_the_order_of_the_tasks_of_a_batch_does_not_matter():
    learner, tasks = model(), [task(seed) for seed in (1, 2, 3)]

    def gradient(order):
        batch = jax.tree.map(lambda *x: jnp.stack(x), *(tasks[i] for i in order))
        return gradient_of_batch(learner, batch)

    for a, b in zip(*(jax.tree.leaves(gradient(order)) for order in ((0, 1, 2), (2, 0, 1))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


def test_a_step_is_against_the_slope_of_the_context_alone():
    learner, support = model(step=1.0, steps=1), task(1).support

    @eqx.filter_jit
    def slope_at_zero(network):
        hidden = network.trunk(support.inputs)
        return jax.grad(lambda c: mean_loss(network.branch(hidden, c), support))(jnp.zeros(CONTEXT))

    adapted = adapt(learner, support)
    np.testing.assert_allclose(adapted.context, -slope_at_zero(learner.network), rtol=1e-9, atol=1e-12)
    assert eqx.tree_equal(adapted.network, learner.network)


@eqx.filter_jit
def objective(learner: CAVIA, task: Episode):
    return learner.objective(task)[0]


def test_the_gradient_goes_through_both_steps():
    learner, episode = model(), task(1)
    _, gradient = objective_and_gradient(learner, episode)
    weights = learner.network.film_weights
    way = jax.random.normal(jax.random.key(3), weights.shape)

    def at(shift):
        moved = eqx.tree_at(lambda m: m.network.film_weights, learner, weights + shift * way)
        return float(objective(moved, episode))

    difference = (at(1e-5) - at(-1e-5)) / 2e-5
    np.testing.assert_allclose(jnp.sum(gradient.network.film_weights * way), difference, rtol=1e-6)
    _, first_order = objective_and_gradient(model(inner_gradient=InnerGradient.FIRST_ORDER), episode)
    assert abs(float(jnp.sum(first_order.network.film_weights * way)) - difference) > 1e-3 * abs(difference)
