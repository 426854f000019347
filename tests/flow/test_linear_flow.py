import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import pytest

from comln import Integrator, SquaredError, gradient_flow
from comln.flow.adaptive import follow
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.head_solve import system_of
from comln.flow.integrator import Euler, FlowResult
from comln.flow.linear_flow import follow_linear_flow
from tests.flow.problems import random_problem, relative_error


def setting(in_span, size=5):
    """Return embeddings with a duplicate row (a Gram matrix with equal and zero eigenvalues), weights, constants."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(7, size))
    embeddings[1] = embeddings[0]
    share = rng.uniform(size=7)
    share[2] = 0.0
    constants = (jnp.eye(3)[jnp.arange(7) % 3], jnp.asarray(share / share.sum()))
    weights, outer = rng.normal(size=(3, size)), rng.normal(size=(3, size))
    return jnp.asarray(embeddings), jnp.asarray(weights), constants, jnp.asarray(outer)


def posed(in_span, embeddings, weights, proximal):
    factor = embeddings @ embeddings.T if in_span else embeddings
    return HeadParameters(factor, embeddings @ weights.T, proximal)


@pytest.mark.parametrize("in_span", [True, False])
@pytest.mark.parametrize("proximal", [0.0, 0.3])
@pytest.mark.parametrize("horizon", [0.0, 1e-4, 1.0, 30.0])
def test_closed_form_and_its_gradients_equal_the_matrix_exponential(in_span, proximal, horizon):
    embeddings, weights, constants, outer = setting(in_span)
    labels, share = constants

    def ours(embeddings, weights, horizon, proximal):
        state = follow_linear_flow(in_span, posed(in_span, embeddings, weights, proximal), constants, horizon)
        return jnp.sum(outer * (weights + state.T @ (embeddings if in_span else jnp.eye(5))))

    def exponential(embeddings, weights, horizon, proximal):
        matrix = embeddings.T @ (share[:, None] * embeddings) + proximal * jnp.eye(5)
        right = embeddings.T @ (share[:, None] * (embeddings @ weights.T - labels))
        block = jnp.block([[-matrix * horizon, right * horizon], [jnp.zeros((3, 8))]])
        return jnp.sum(outer * (weights - jax.scipy.linalg.expm(block)[:5, 5:].T))

    arguments = (embeddings, weights, jnp.asarray(horizon), jnp.asarray(proximal))
    for a, b in zip(
        jax.tree.leaves(jax.value_and_grad(ours, argnums=(0, 1, 2, 3))(*arguments)),
        jax.tree.leaves(jax.value_and_grad(exponential, argnums=(0, 1, 2, 3))(*arguments)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("in_span", [True, False])
@pytest.mark.parametrize("horizon", [3.0, 1000.0])
def test_closed_form_equals_the_integrator(in_span, horizon):
    embeddings, weights, constants, _ = setting(in_span, size=9)
    parameters = posed(in_span, embeddings, weights, jnp.asarray(0.01))
    tight = Integrator(1e-12, 1e-12, 100_000)

    def integrated(parameters):
        system = system_of(HeadFlow(SquaredError(), in_span), tight, parameters.factor)
        start = jnp.zeros((7 if in_span else 9, 3))
        followed = follow(
            system, start, jnp.asarray(horizon), jnp.ones(()), jnp.asarray(100_000), parameters, constants
        )
        return jnp.sum(jnp.sin(followed.state[:, :2]))

    def closed(parameters):
        return jnp.sum(jnp.sin(follow_linear_flow(in_span, parameters, constants, jnp.asarray(horizon))[:, :2]))

    def symmetric(gradient):
        # A Gram matrix is symmetric, and only that part of its gradient means anything.
        factor = gradient.factor + gradient.factor.T if in_span else gradient.factor
        return gradient._replace(factor=factor)

    for a, b in zip(symmetric(jax.grad(integrated)(parameters)), symmetric(jax.grad(closed)(parameters)), strict=True):
        assert relative_error(a, b) < 1e-8


@pytest.mark.parametrize("size", [4, 9])
@pytest.mark.parametrize("proximal", [0.0, 0.2])
def test_the_limit_is_ridge_regression_around_the_initial_weights(size, proximal):
    problem = random_problem(size=size)
    weights, info = gradient_flow(
        problem.initial_weights, problem.embeddings, problem.labels, jnp.inf, loss=SquaredError(), proximal=proximal
    )
    assert info.result == FlowResult.successful
    gram = problem.embeddings.T @ problem.embeddings / 6 + proximal * jnp.eye(size)
    residual = problem.labels - problem.embeddings @ problem.initial_weights.T
    expected = problem.initial_weights + (jnp.linalg.pinv(gram, rtol=1e-10) @ problem.embeddings.T @ residual / 6).T
    np.testing.assert_allclose(weights, expected, atol=1e-9)


def test_euler_steps_of_the_squared_error_are_taken_one_by_one():
    problem = random_problem()
    arguments = (problem.initial_weights, problem.embeddings, problem.labels)
    weights, info = gradient_flow(*arguments, 1.0, loss=SquaredError(), integrator=Integrator(method=Euler(0.1)))
    expected = problem.initial_weights
    for _ in range(10):
        residual = problem.embeddings @ expected.T - problem.labels
        expected = expected - 0.1 * residual.T @ problem.embeddings / 6
    assert int(info.steps) == 10
    np.testing.assert_allclose(weights, expected, rtol=1e-10)


@pytest.mark.float32
def test_float32_keeps_its_digits_over_a_long_time_with_duplicate_examples():
    problem = random_problem(norm=1e3)
    problem = problem._replace(embeddings=problem.embeddings.at[1].set(problem.embeddings[0]))
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), problem)
    weights, _ = gradient_flow(single[0], single[1], single[2], 1e4, loss=SquaredError())
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), problem)
        expected, _ = gradient_flow(exact[0], exact[1], exact[2], 1e4, loss=SquaredError())
    assert relative_error(weights, expected) < 1e-3


@pytest.mark.float32
def test_euler_counts_its_steps_rather_than_adding_them_up():
    problem = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), random_problem())
    _, info = gradient_flow(problem[0], problem[1], problem[2], 100.0, integrator=Integrator.euler(0.001))
    assert int(info.steps) == 100_000
