import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Conv4, Identity
from comln.backbones.layers import BatchNorm, convolve_by_patches
from comln.episode import Episode, Examples
from comln.heads import LinearHead
from comln.learners import MAML, InnerGradient
from comln.learners.base import mean_loss
from comln.learners.inner_loop import gradient_descent
from comln.learners.whole_network import WholeNetwork
from tests.learners.tasks import assert_trees_close, episode, objective_and_gradient
from tests.paper.literal_inner_loops import maml_of_two_points

KINDS = list(InnerGradient)


def of_two_points(weight: float, step: float, steps: int, inner_gradient: InnerGradient) -> MAML:
    head = LinearHead(jnp.array([[weight], [-weight]]), jnp.zeros(2))
    return MAML(network=WholeNetwork(Identity(1), head), step=step, steps=steps, inner_gradient=inner_gradient)


@pytest.mark.parametrize("inner_gradient", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_loss_and_gradient_are_those_worked_out_by_hand(steps, inner_gradient):
    weight, step, query = 0.3, 0.7, 1.5
    support = Examples(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2))
    task = Episode(support, Examples(jnp.array([[query]]), jnp.array([[1.0, 0.0]]), jnp.ones(1)))
    value, gradient = objective_and_gradient(of_two_points(weight, step, steps, inner_gradient), task)
    first_order = inner_gradient is InnerGradient.FIRST_ORDER
    expected, slope = maml_of_two_points(weight, step, steps, query, first_order)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    found = gradient.network.linear.weights
    assert float(found[0, 0] - found[1, 0]) == pytest.approx(slope, rel=1e-12)


def test_first_order_is_exact_where_the_loss_has_no_curvature():
    slope, target = jnp.array([0.5, -2.0]), jnp.array([1.0, 3.0])

    def outer(start, inner_gradient):
        end = gradient_descent(lambda x: slope @ x, start, 0.1, 4, inner_gradient)
        return jnp.sum((end - target) ** 2)

    exact, first_order = (jax.grad(outer)(jnp.zeros(2), kind) for kind in KINDS)
    np.testing.assert_allclose(first_order, exact, rtol=1e-14)


@pytest.mark.parametrize("inner_gradient", KINDS)
def test_with_steps_of_size_zero_the_gradient_is_that_of_the_query_loss(inner_gradient):
    task, network = episode(), Identity(4)
    model = MAML.init(network, 3, jax.random.key(0), step=0.0, steps=3, inner_gradient=inner_gradient)
    _, gradient = objective_and_gradient(model, task)
    expected = eqx.filter_grad(lambda whole: mean_loss(whole(task.query.inputs), task.query))(model.network)
    assert_trees_close(gradient.network, expected, rtol=1e-12)


def test_scale_and_shift_of_the_normalisation_are_learned_and_not_adapted():
    network = Conv4.init(16, 1, 4, jax.random.key(0), scale_output=False, convolve=convolve_by_patches)
    model = MAML.init(network, 2, jax.random.key(1), step=0.5, steps=1)
    images = jax.random.normal(jax.random.key(2), (6, 16, 16, 1))
    support = Examples(images, jnp.eye(2)[jnp.arange(6) % 2], jnp.ones(6))
    adapted, _ = model.adapt(support)

    def norms(whole):
        return [
            n for n in jax.tree.leaves(whole, is_leaf=lambda n: isinstance(n, BatchNorm)) if isinstance(n, BatchNorm)
        ]

    assert len(norms(adapted)) == 4
    assert_trees_close(norms(adapted), norms(model.network), rtol=0, atol=0)
    others = (
        eqx.filter(model.network.split()[0], eqx.is_inexact_array),
        eqx.filter(adapted.split()[0], eqx.is_inexact_array),
    )
    # A convolution's bias is undone by the normalisation that follows it; everything else moves.
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(others[0]), jax.tree.leaves(others[1]), strict=True
    ):
        if before.ndim > 1:
            assert float(jnp.max(jnp.abs(after - before))) > 1e-6, jax.tree_util.keystr(path)
