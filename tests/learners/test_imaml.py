import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.learners import IMAML, ConjugateGradients, ProximalPull
from comln.learners.base import mean_loss
from comln.learners.inner_loop import InnerGradient, gradient_descent
from tests.learners.tasks import episode, objective_and_gradient, vector_of

PROXIMAL, TASK = 0.3, episode(spread=0.3)


def imaml(**settings) -> IMAML:
    settings = {"step": 0.1, "steps": 20, "proximal": PROXIMAL, **settings}
    return IMAML.init(Identity(4), 3, jax.random.key(0), **settings)


def by_a_dense_solve(model: IMAML, damping: float = 0.0, shift: float = 0.0):
    """Return the implicit gradient with the Hessian written out, as a vector."""
    optimum, back = vector_of(model.adapt(TASK.support)[0])

    def loss(examples):
        return lambda vector: mean_loss(back(vector)(examples.inputs), examples)

    hessian, slope = jax.hessian(loss(TASK.support))(optimum), jax.grad(loss(TASK.query))(optimum)
    system = (1 + damping) * jnp.eye(len(optimum)) + hessian / (PROXIMAL + shift)
    return jnp.linalg.solve(system, slope)


def gradient_of_start(model: IMAML):
    return vector_of(objective_and_gradient(model, TASK)[1].network)[0]


@pytest.mark.parametrize(("damping", "shift"), [(0.0, 0.0), (1.0, 10.0)])
def test_many_conjugate_gradients_are_a_dense_solve(damping, shift):
    """With and without the damping and the shift of the authors' program."""
    model = imaml(solver=ConjugateGradients(40, damping, shift))
    np.testing.assert_allclose(gradient_of_start(model), by_a_dense_solve(model, damping, shift), rtol=1e-9, atol=1e-12)


def test_the_authors_system_gives_another_gradient():
    exact, theirs = (by_a_dense_solve(imaml(), *values) for values in ((0.0, 0.0), (1.0, 10.0)))
    assert float(jnp.linalg.norm(theirs - exact)) > 0.1 * float(jnp.linalg.norm(exact))


def test_more_conjugate_gradients_are_nearer():
    exact = by_a_dense_solve(imaml())
    errors = [
        float(jnp.linalg.norm(gradient_of_start(imaml(solver=ConjugateGradients(count))) - exact))
        for count in (1, 3, 5, 10)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3 * errors[0]


def unrolled_gradient(steps: int, step: float):
    """Return the gradient through so many steps of the regularised descent, in both start and anchor."""
    start, back = vector_of(imaml().network)

    def outer(start):
        def inner(weights):
            loss = mean_loss(back(weights)(TASK.support.inputs), TASK.support)
            return loss + PROXIMAL / 2 * jnp.sum((weights - start) ** 2)

        end = gradient_descent(inner, start, step, steps, InnerGradient.EXACT)
        return mean_loss(back(end)(TASK.query.inputs), TASK.query)

    return jax.jit(jax.grad(outer))(start)


def test_at_the_optimum_it_is_the_gradient_through_all_steps():
    model = imaml(step=0.5, steps=400, solver=ConjugateGradients(40))
    np.testing.assert_allclose(gradient_of_start(model), unrolled_gradient(400, 0.5), rtol=1e-7, atol=1e-10)


def test_before_the_optimum_it_is_not():
    """The paper counts iMAML's gradient among the inexact ones."""
    few = gradient_of_start(imaml(steps=3, solver=ConjugateGradients(40)))
    exact = unrolled_gradient(3, 0.1)
    assert float(jnp.linalg.norm(few - exact)) > 0.1 * float(jnp.linalg.norm(exact))


def test_the_optimum_is_where_the_regularised_loss_is_flat():
    model = imaml(step=0.5, steps=400)
    optimum, _ = model.adapt(TASK.support)
    slope = eqx.filter_grad(lambda whole: mean_loss(whole(TASK.support.inputs), TASK.support))(optimum)
    pull = PROXIMAL * (vector_of(optimum)[0] - vector_of(model.network)[0])
    np.testing.assert_allclose(vector_of(slope)[0], -pull, atol=1e-10)


@pytest.mark.parametrize("proximal", [0.0, -1.0, float("nan")])
def test_without_a_pull_there_may_be_no_optimum(proximal):
    with pytest.raises(ValueError, match="proximal weight above 0"):
        imaml(proximal=proximal)


def test_the_authors_take_plain_steps_and_one_step_back():
    start, back = vector_of(imaml().network)

    def slope(vector):
        return jax.grad(lambda v: mean_loss(back(v)(TASK.support.inputs), TASK.support))(vector)

    expected = start
    for _ in range(3):
        expected = expected - 0.1 * slope(expected)
    found = {pull: vector_of(imaml(steps=3, pull=pull).adapt(TASK.support)[0])[0] for pull in ProximalPull}
    np.testing.assert_allclose(found[ProximalPull.NOWHERE], expected, rtol=1e-12)
    np.testing.assert_allclose(
        found[ProximalPull.ONCE_AT_THE_END], expected - 0.1 * PROXIMAL * (expected - start), rtol=1e-12
    )
    pulled = start
    for _ in range(3):
        pulled = pulled - 0.1 * (slope(pulled) + PROXIMAL * (pulled - start))
    np.testing.assert_allclose(found[ProximalPull.EVERY_STEP], pulled, rtol=1e-12)
