import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, Integrator, gradient_flow
from comln.flow.chebyshev import MOST_STAGES, follow_visiting
from comln.flow.chebyshev import _coefficients as coefficients
from tests.flow.problems import random_problem


def amplification(stages, products):
    """Return what one step makes of y = 1 under y' = -rho y, for products h rho: the stages written out."""
    rows = coefficients()[stages]
    before, now = np.ones_like(products), 1 - rows[1, 2] * products
    for mu, nu, mu_rate, gamma_rate in rows[2 : stages + 1]:
        new = 1 - mu - nu + mu * now + nu * before - products * (mu_rate * now + gamma_rate)
        before, now = now, new
    return now


@pytest.mark.parametrize("stages", [2, 3, 10, MOST_STAGES])
def test_a_step_is_of_second_order_and_stable_as_far_as_it_says(stages):
    small = 1e-3
    assert abs(amplification(stages, small) - np.exp(-small)) < small**3
    products = np.linspace(0, 0.65 * (stages**2 - 1), 2000)
    assert np.max(np.abs(amplification(stages, products))) <= 1 + 1e-12


def follow(problem, stops, tol, most_steps=10_000):
    def rate(state):
        residual = CrossEntropy().gradient(problem.embeddings @ state, problem.labels)
        return -problem.embeddings.T @ residual / len(residual)

    def multiply_hessian(state, vector):
        curved = CrossEntropy().curvature_product(
            problem.embeddings @ state, problem.labels, problem.embeddings @ vector
        )
        return problem.embeddings.T @ curved / len(curved)

    start = problem.initial_weights.T
    states = jnp.full((len(stops), *start.shape), jnp.nan)

    def visit(states, stop, state):
        return states.at[stop].set(state), True

    direction = jnp.sin(1.0 + jnp.arange(start.size, dtype=float)).reshape(start.shape)
    return jax.jit(
        lambda: follow_visiting(rate, multiply_hessian, start, direction, stops, visit, states, tol, most_steps)
    )()


@pytest.mark.slow
def test_a_stiff_flow_is_where_other_methods_find_it_at_every_stop():
    """More examples than features, smoothed labels: explicit steps would be thousands."""
    problem = random_problem(support=40, size=4, norm=30.0, smoothing=0.1)
    stops = jnp.array([0.0, 0.003, 0.1, 0.11, 2.0, 300.0])
    ending = follow(problem, stops, 1e-8)
    assert int(ending.visited) == len(stops)

    @jax.jit
    @jax.vmap
    def expected(time):
        return gradient_flow(*problem[:3], time, integrator=Integrator(1e-9, 1e-9))[0].T

    np.testing.assert_allclose(ending.carry, expected(stops), atol=2e-6)


def test_the_error_falls_with_the_tolerance_and_steps_grow():
    problem, stops = random_problem(support=12, size=4), jnp.array([50.0])
    exact = follow(problem, stops, 1e-9).carry
    endings = [follow(problem, stops, tol) for tol in (1e-3, 1e-5)]
    errors = [float(jnp.max(jnp.abs(ending.carry - exact))) for ending in endings]
    assert errors[0] < 1e-2 and errors[1] < errors[0] / 10
    assert int(endings[0].steps) < int(endings[1].steps) / 2


def test_without_enough_steps_the_last_stops_are_not_visited():
    ending = follow(random_problem(support=12, size=4), jnp.array([1e-3, 1e3]), 1e-6, most_steps=3)
    assert int(ending.steps) == 3 and int(ending.visited) == 1
    assert bool(jnp.all(jnp.isnan(ending.carry[1])))
