"""Flows that stay stiff, come to rest, or excite only some of their modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import ForwardSensitivity, Integrator, SpanAdjoint, gradient_flow
from comln.flow.integrator import FlowResult, Rodas4
from comln.flow.lane_steps import ADAPTIVE_SLOTS
from comln.flow.meta_gradients import FirstOrder, ImplicitDifferentiation
from tests.flow.problems import Problem, meta_gradients, query_loss, random_problem, relative_error, solve

TIGHT = Integrator(rtol=1e-10, atol=1e-10, max_steps=100_000)
NAMES = ("initial_weights", "embeddings", "query")


def slow_unless(quick, value):
    return pytest.param(value, marks=[] if quick else [pytest.mark.slow])


def contradictory(norm=1.0):
    """Return a problem whose first examples are duplicates with contradictory labels."""
    problem = random_problem(norm=norm)
    return problem._replace(embeddings=problem.embeddings.at[1].set(problem.embeddings[0]))


HARD = {
    "smoothed": random_problem(norm=1e3, smoothing=0.1),
    "contradictory": contradictory(norm=1e3),
    "more examples than features": random_problem(support=30, size=4, norm=1e3),
}


@pytest.mark.parametrize("name", [slow_unless(name == "smoothed", name) for name in HARD])
def test_stiff_flows_are_solved_in_few_steps_to_the_tolerance(name):
    problem = HARD[name]
    _, reference_info, reference = solve(problem, 1e4, SpanAdjoint(), TIGHT)
    _, info, gradients = solve(problem, 1e4, SpanAdjoint())
    assert info.result == reference_info.result == FlowResult.successful
    assert int(info.steps) < 250
    for key in NAMES:
        if key == "initial_weights" and name == "more examples than features":
            # At rest nothing is left of where it began: the gradient vanishes.
            assert float(jnp.max(jnp.abs(gradients[key]))) < 1e-12
        else:
            assert relative_error(gradients[key], reference[key]) < 1e-3, key


@pytest.mark.parametrize("proximal", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", [slow_unless(name == "smoothed", name) for name in HARD])
def test_flows_at_rest_are_solved_for_where_they_rest(name, proximal):
    problem = HARD[name]
    _, info, gradients = solve(problem, 1e4, SpanAdjoint(), proximal=proximal)
    assert info.result == FlowResult.successful
    assert int(info.steps) < 40
    _, _, limit = solve(problem, np.inf, ImplicitDifferentiation(), proximal=proximal)
    for key in NAMES:
        assert relative_error(gradients[key], limit[key]) < 1e-9, key
    # Independently: the support loss is stationary there.
    weights, _ = gradient_flow(problem.initial_weights, problem.embeddings, problem.labels, jnp.inf, proximal=proximal)
    residual = jax.nn.softmax(problem.embeddings @ weights.T) - problem.labels
    gradient = residual.T @ problem.embeddings / len(residual) + proximal * (weights - problem.initial_weights)
    scale = jnp.sqrt(jnp.mean(jnp.sum(problem.embeddings**2, axis=1)))
    assert float(jnp.max(jnp.abs(gradient))) < 1e-10 * scale


@pytest.mark.slow
def test_a_long_horizon_with_a_proximal_term_agrees_with_forward_sensitivities():
    # T = 60 is at rest to 1e-8 by the flow's own reckoning, and is followed; the limit is a solve of its own.
    problem = random_problem()
    followed = meta_gradients(problem, 60.0, ForwardSensitivity(), Integrator(1e-11, 1e-11, 100_000), 0.3)
    limit = meta_gradients(problem, np.inf, SpanAdjoint(), proximal=0.3)
    for key in NAMES:
        assert relative_error(limit[key], followed[key]) < 1e-6, key
    assert float(limit["horizon"]) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("integrator", [Integrator(), Integrator(method=Rodas4())], ids=["explicit", "implicit"])
@pytest.mark.parametrize("horizon", [3.0, 300.0])
def test_modes_that_the_solution_does_not_excite_have_the_right_gradient(integrator, horizon):
    # Each point bears both labels equally often: from zero weights nothing moves, and no error can be estimated. The
    # derivative is that of a linear flow, exp(-H T) with H the Hessian at zero.
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 8))
    embeddings = jnp.asarray(np.concatenate([points, points]))
    labels = jnp.eye(2)[jnp.array([0, 0, 0, 1, 1, 1])]
    outer = jnp.asarray(rng.normal(size=(2, 8)))

    def value(weights):
        return jnp.sum(outer * gradient_flow(weights, embeddings, labels, horizon, integrator=integrator)[0])

    weights_bar = jax.jit(jax.grad(value))(jnp.zeros((2, 8)))
    curvature = np.array([[0.25, -0.25], [-0.25, 0.25]])
    hessian = np.kron(curvature, np.asarray(points.T @ points) / 3)
    spectrum, basis = np.linalg.eigh(hessian)
    expected = (basis * np.exp(-spectrum * horizon)) @ basis.T @ np.asarray(outer).ravel()
    assert relative_error(np.asarray(weights_bar).ravel(), expected) < 3e-4


@pytest.mark.slow
def test_the_implicit_integrator_agrees_with_the_explicit_one():
    problem = random_problem()
    explicit = meta_gradients(problem, 20.0, SpanAdjoint(), TIGHT, 0.05)
    implicit = meta_gradients(problem, 20.0, SpanAdjoint(), Integrator(1e-10, 1e-10, method=Rodas4()), 0.05)
    for key in (*NAMES, "horizon"):
        assert relative_error(implicit[key], explicit[key]) < 1e-7, key


@pytest.mark.slow
def test_lanes_that_are_easy_stiff_and_at_rest_share_a_batch():
    problems = [random_problem(norm=1e3), HARD["smoothed"], random_problem(norm=1e3), random_problem(1)]
    horizons, proximals = jnp.array([1e4, 1e4, jnp.inf, 0.0]), jnp.array([0.0, 0.0, 0.3, 1.0])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)

    def loss(problem, initial_weights, embeddings, horizon, proximal):
        changed = problem._replace(initial_weights=initial_weights, embeddings=embeddings)
        return query_loss(changed, horizon, SpanAdjoint(), proximal=proximal)[0]

    together = jax.jit(jax.vmap(jax.grad(loss, argnums=(1, 2))))(
        stacked, stacked.initial_weights, stacked.embeddings, horizons, proximals
    )
    for i, problem in enumerate(problems):
        alone = meta_gradients(problem, horizons[i], SpanAdjoint(), proximal=float(proximals[i]) or 1e-300)
        for a, key in zip(together, NAMES, strict=False):
            np.testing.assert_allclose(a[i], alone[key], rtol=1e-7, atol=1e-12)


@pytest.mark.slow
def test_a_limit_without_proximal_term_is_found_where_there_is_one_and_refused_where_there_is_none():
    smoothed = HARD["smoothed"]
    limit = meta_gradients(smoothed, np.inf, SpanAdjoint())
    late = meta_gradients(smoothed, 1e4, SpanAdjoint(), TIGHT)
    for key in NAMES:
        assert relative_error(limit[key], late[key]) < 1e-6, key
    separable = random_problem()
    _, info, gradients = solve(separable, np.inf, SpanAdjoint())
    assert info.result == FlowResult.no_limit
    for key in ("initial_weights", "embeddings", "horizon"):
        assert float(jnp.max(jnp.abs(gradients[key]))) == 0.0, key


def test_an_infinite_horizon_is_refused_by_what_cannot_follow_it():
    problem = random_problem()
    arguments = (problem.initial_weights, problem.embeddings, problem.labels, jnp.inf)
    with pytest.raises(ValueError, match="cannot follow"):
        gradient_flow(*arguments, proximal=1.0, meta_gradient=ForwardSensitivity())
    with pytest.raises(ValueError, match="cannot follow"):
        gradient_flow(*arguments, proximal=1.0, integrator=Integrator.euler(0.1))


def test_forward_sensitivity_names_the_integrators_that_it_takes():
    problem = random_problem()
    with pytest.raises(ValueError, match=r"Rodas4 steps are for `meta_gradient=SpanAdjoint\(\)` alone"):
        gradient_flow(
            problem.initial_weights,
            problem.embeddings,
            problem.labels,
            1.0,
            meta_gradient=ForwardSensitivity(),
            integrator=Integrator(method=Rodas4()),
        )


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [5.0, np.inf])
def test_first_order_gradients_are_the_outer_gradient_and_nothing_for_the_support(horizon):
    problem, proximal = random_problem(), 0.3
    exact = meta_gradients(problem, horizon, SpanAdjoint(), proximal=proximal)
    first = meta_gradients(problem, horizon, FirstOrder(), proximal=proximal)
    weights, _ = gradient_flow(problem.initial_weights, problem.embeddings, problem.labels, horizon, proximal=proximal)
    residual = jax.nn.softmax(problem.query @ weights.T) - problem.query_labels
    np.testing.assert_allclose(first["initial_weights"], residual.T @ problem.query / len(residual), rtol=1e-9)
    assert float(jnp.max(jnp.abs(first["embeddings"]))) == 0.0
    np.testing.assert_allclose(first["query"], exact["query"], rtol=1e-12)
    np.testing.assert_allclose(first["horizon"], exact["horizon"], rtol=1e-9, atol=1e-15)


def test_first_order_says_that_it_does_not_differentiate_the_proximal_weight():
    with pytest.raises(ValueError, match="SpanAdjoint"):
        jax.grad(lambda proximal: query_loss(random_problem(), 1.0, FirstOrder(), proximal=proximal)[0])(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", [SpanAdjoint(), ImplicitDifferentiation()], ids=lambda m: type(m).__name__)
def test_the_proximal_weight_has_its_gradient_at_rest(meta_gradient):
    problem = random_problem()

    def value(proximal):
        return float(solve(problem, np.inf, SpanAdjoint(), proximal=proximal)[0])

    gradient = jax.grad(lambda proximal: query_loss(problem, jnp.inf, meta_gradient, proximal=proximal)[0])(0.3)
    assert relative_error(gradient, (value(0.3 + 1e-4) - value(0.3 - 1e-4)) / 2e-4) < 1e-6


def test_a_gradient_shared_by_tasks_is_the_sum_over_tasks():
    problem, horizons = random_problem(), jnp.array([0.3, 2.0, 9.0])

    def loss(weights, embeddings):
        def one(horizon):
            return query_loss(Problem(weights, embeddings, *problem[2:]), horizon, SpanAdjoint())[0]

        return jnp.sum(jax.vmap(one)(horizons))

    shared = jax.jit(jax.grad(loss, argnums=(0, 1)))(problem.initial_weights, problem.embeddings)
    each = [meta_gradients(problem, horizon, SpanAdjoint()) for horizon in horizons]
    for gradient, key in zip(shared, NAMES, strict=False):
        np.testing.assert_allclose(gradient, sum(g[key] for g in each), rtol=1e-9, atol=1e-13)


@pytest.mark.float32
@pytest.mark.parametrize("horizon", [1.0, 100.0])
@pytest.mark.parametrize("norm", [1e-6, 1.0, 1e3, 1e6])
def test_float32_meta_gradients_at_default_tolerance_keep_four_digits(norm, horizon):
    with jax.enable_x64(True):
        problem = random_problem(ways=5, support=15, size=100, queries=25, norm=norm)
        expected = meta_gradients(problem, horizon, SpanAdjoint(), TIGHT)
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), problem)
    gradients = meta_gradients(single, np.float32(horizon), SpanAdjoint())
    for name in expected:
        assert relative_error(gradients[name], expected[name]) <= 1e-4, name


@pytest.mark.slow
def test_a_batch_that_needs_more_room_than_there_is_says_so_and_harms_no_lane_that_was_done(store_of):
    store_of(ADAPTIVE_SLOTS=80)
    problems = [random_problem(norm=1e3), HARD["contradictory"]]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)

    def loss(problem, initial_weights, embeddings):
        changed = problem._replace(initial_weights=initial_weights, embeddings=embeddings)
        return query_loss(changed, 1e4, SpanAdjoint())

    gradient = jax.vmap(jax.grad(loss, argnums=(1, 2), has_aux=True))
    together, info = jax.jit(gradient)(stacked, stacked.initial_weights, stacked.embeddings)
    assert [bool(x) for x in info.result == FlowResult.successful] == [True, False]
    assert [bool(x) for x in info.result == FlowResult.max_steps_reached] == [False, True]
    store_of(ADAPTIVE_SLOTS=ADAPTIVE_SLOTS)
    alone = meta_gradients(problems[0], 1e4, SpanAdjoint())
    for array, key in zip(together, NAMES, strict=False):
        np.testing.assert_allclose(array[0], alone[key], rtol=1e-7, atol=1e-12)
        assert float(jnp.max(jnp.abs(array[1]))) == 0.0


@pytest.mark.slow
@pytest.mark.float32
@pytest.mark.parametrize("proximal", [0.01, 0.03, 1.0])
def test_float32_limits_with_a_small_proximal_weight_are_those_of_that_weight(proximal):
    problem = HARD["smoothed"]
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), problem)
        expected = meta_gradients(exact, np.inf, SpanAdjoint(), proximal=proximal)
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), problem)
    _, info, gradients = solve(single, np.float32(np.inf), SpanAdjoint(), proximal=np.float32(proximal))
    assert info.result == FlowResult.successful
    for key in NAMES:
        assert relative_error(gradients[key], expected[key]) < 3e-3, key


def test_whole_numbers_and_half_precision_are_followed_in_single_precision(without_type_hook):
    points, labels = jnp.array([[1], [-1]]), jnp.eye(2)
    weights, _ = gradient_flow(jnp.zeros((2, 1), int), points, labels, 0.9)
    expected, _ = gradient_flow(jnp.zeros((2, 1)), points.astype(float), labels, 0.9)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    half, _ = gradient_flow(jnp.zeros((2, 1), jnp.bfloat16), points.astype(jnp.bfloat16), labels, 0.9)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, expected, rtol=1e-5)


def test_labels_that_a_loss_does_not_take_and_a_missing_proximal_weight_are_errors():
    problem = random_problem()
    with pytest.raises(ValueError, match="at least zero for the cross-entropy"):
        gradient_flow(problem.initial_weights, problem.embeddings, -problem.labels, 1.0)
    with pytest.raises(ValueError, match="Pass `proximal` > 0"):
        gradient_flow(*problem[:3], 1.0, meta_gradient=ImplicitDifferentiation())


@pytest.mark.slow
def test_where_an_implicit_step_is_dear_explicit_ones_go_on_longer_and_are_as_right():
    # With 100 examples and 10 rows an implicit step costs 3.3 * 100**2 / (28 * 10) = 118 explicit ones.
    problem = random_problem(ways=10, support=100, size=10, norm=15.0)
    _, info, gradients = solve(problem, 1000.0, SpanAdjoint())
    assert int(info.steps) > 200  # Rodas takes 71
    expected = meta_gradients(problem, 1000.0, SpanAdjoint(), Integrator(1e-9, 1e-9, method=Rodas4()))
    for key in NAMES:
        assert relative_error(gradients[key], expected[key]) < 1e-3, key
