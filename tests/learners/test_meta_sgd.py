import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.backbones import Identity
from comln.learners import MAML, MetaSGD
from comln.learners.base import ParameterGroup, mean_loss
from tests.learners.tasks import assert_trees_close, episode, objective_and_gradient

STEP, KEY, TASK = 0.3, jax.random.key(0), episode()


def meta_sgd(steps: int) -> MetaSGD:
    return MetaSGD.init(Identity(4), 3, KEY, initial_step=STEP, steps=steps)


def test_with_equal_step_sizes_it_is_maml():
    for steps in (1, 3):
        value, gradient = objective_and_gradient(meta_sgd(steps), TASK)
        expected, slope = objective_and_gradient(MAML.init(Identity(4), 3, KEY, step=STEP, steps=steps), TASK)
        np.testing.assert_allclose(value, expected, rtol=1e-13)
        assert_trees_close(gradient.network, slope.network, rtol=1e-11, atol=1e-14)


def test_after_one_step_the_gradient_of_the_step_sizes_is_minus_the_product_of_two_slopes():
    model = meta_sgd(1)
    support_slope = eqx.filter_grad(lambda whole: mean_loss(whole(TASK.support.inputs), TASK.support))(model.network)
    adapted, _ = model.adapt(TASK.support)
    query_slope = eqx.filter_grad(lambda whole: mean_loss(whole(TASK.query.inputs), TASK.query))(adapted)
    _, gradient = objective_and_gradient(model, TASK)
    expected = jax.tree.map(lambda a, b: -a * b, support_slope, query_slope)
    assert_trees_close(gradient.step_sizes, expected, rtol=1e-12, atol=1e-15)


def test_after_three_steps_it_is_that_of_central_differences():
    model = meta_sgd(3)
    _, gradient = objective_and_gradient(model, TASK)
    way = jax.random.normal(jax.random.key(1), model.step_sizes.linear.weights.shape)

    def at(shift):
        sizes = model.step_sizes.linear.weights + shift * way
        return float(eqx.tree_at(lambda m: m.step_sizes.linear.weights, model, sizes).objective(TASK)[0])

    difference = (at(1e-5) - at(-1e-5)) / 2e-5
    np.testing.assert_allclose(jnp.sum(gradient.step_sizes.linear.weights * way), difference, rtol=1e-7)


def test_a_step_size_may_be_negative_and_none_decays():
    model = eqx.tree_at(lambda m: m.step_sizes, meta_sgd(1), jax.tree.map(lambda x: -x, meta_sgd(1).step_sizes))
    away, _ = model.adapt(TASK.support)

    def loss(whole):
        return float(mean_loss(whole(TASK.support.inputs), TASK.support))

    assert loss(away) > loss(model.network)
    assert set(jax.tree.leaves(model.parameter_groups().step_sizes)) == {ParameterGroup.SCALE}
