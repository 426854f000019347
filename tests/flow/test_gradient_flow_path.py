import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, Integrator, SigmoidCrossEntropy, SquaredError, gradient_flow, gradient_flow_path
from comln.flow.integrator import FlowResult
from tests.flow.problems import random_problem, relative_error

ACCURATE, TIGHT = Integrator(1e-9, 1e-9), Integrator(1e-11, 1e-11, 100_000)
TIMES = jnp.array([0.0, 0.01, 1.0, 7.7, 49.9, 50.0])
CASES = {
    "easy": (random_problem(), 50.0, 0.0, CrossEntropy()),
    "stiff": (random_problem(norm=1e3, smoothing=0.1), 1e3, 0.0, CrossEntropy()),
    "to its limit": (random_problem(), np.inf, 0.3, CrossEntropy()),
    "in rows": (random_problem(support=12, size=4), 60.0, 0.0, CrossEntropy()),
    "squared error": (random_problem(), 60.0, 0.0, SquaredError()),
    "many labels": (random_problem(), 60.0, 0.0, SigmoidCrossEntropy()),
}
QUICK = ("squared error",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in CASES])
def test_weights_logits_and_gradients_anywhere_equal_those_of_a_solve_to_there(name):
    problem, horizon, proximal, loss = CASES[name]

    def along(weights, embeddings, times):
        path = gradient_flow_path(
            weights, embeddings, problem.labels, horizon, proximal=proximal, integrator=ACCURATE, loss=loss
        )
        logits = path.logits_at(problem.query, times)
        return jnp.sum(jnp.sin(logits)), (logits, path.weights_at(times))

    def each(weights, embeddings, times):
        def one(time):
            adapted, _ = gradient_flow(
                weights, embeddings, problem.labels, time, proximal=proximal, integrator=TIGHT, loss=loss
            )
            return problem.query @ adapted.T, adapted

        logits, adapted = jax.vmap(one)(times)
        return jnp.sum(jnp.sin(logits)), (logits, adapted)

    arguments = (problem.initial_weights, problem.embeddings, TIMES)
    (gradients, values), (expected, expected_values) = (
        jax.jit(jax.grad(function, argnums=(0, 1, 2), has_aux=True))(*arguments) for function in (along, each)
    )
    for a, b in zip(values, expected_values, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-8)
    for a, b in zip(gradients, expected, strict=True):
        assert relative_error(a, b) < 1e-7


def test_one_time_gives_one_answer_and_no_time_axis():
    problem = random_problem()
    path = gradient_flow_path(*problem[:3], 20.0)
    assert path.weights_at(3.0).shape == (3, 8)
    assert path.logits_at(problem.query, 3.0).shape == (7, 3)
    np.testing.assert_array_equal(path.weights_at(0.0), problem.initial_weights)
    np.testing.assert_allclose(path.weights_at(20.0), gradient_flow(*problem[:3], 20.0)[0], rtol=1e-12)
    np.testing.assert_allclose(
        path.logits_at(problem.query, 3.0), problem.query @ path.weights_at(3.0).T, rtol=1e-9, atol=1e-12
    )


@pytest.mark.slow
def test_paths_of_a_batch_of_tasks_are_made_and_read_together():
    problems = [random_problem(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    paths = jax.vmap(lambda p: gradient_flow_path(p[0], p[1], p[2], 20.0))(stacked)
    together = jax.vmap(lambda path, query: path.logits_at(query, jnp.array([1.0, 9.0])))(paths, stacked.query)
    for i, problem in enumerate(problems):
        alone = gradient_flow_path(*problem[:3], 20.0).logits_at(problem.query, jnp.array([1.0, 9.0]))
        np.testing.assert_allclose(together[i], alone, rtol=1e-9)


def test_times_outside_of_the_path_are_refused_or_nan():
    problem = random_problem()
    path = gradient_flow_path(*problem[:3], 20.0)
    for times in (20.5, -1.0, jnp.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="between 0 and the path's horizon 20"):
            path.weights_at(times)
    weights = jax.jit(lambda path, times: path.weights_at(times))(path, jnp.array([1.0, 20.5]))
    assert jnp.all(jnp.isfinite(weights[0])) and jnp.all(jnp.isnan(weights[1]))


def test_a_path_that_cannot_be_followed_is_an_error_or_nan():
    problem = random_problem()
    with pytest.raises(ValueError, match="grow for ever"):
        gradient_flow_path(*problem[:3], jnp.inf)
    with pytest.raises(ValueError, match="hold a NaN"):
        gradient_flow_path(problem.initial_weights, problem.embeddings * np.nan, problem.labels, 1.0)
    path = jax.jit(lambda w: gradient_flow_path(w, *problem[1:3], -1.0))(problem.initial_weights)
    assert path.info.result == FlowResult.invalid_horizon
