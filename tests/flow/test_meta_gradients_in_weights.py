import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, ForwardSensitivity, Integrator, SpanAdjoint, gradient_flow
from comln.flow.integrator import FlowResult, Rodas4
from comln.flow.meta_gradients import Backpropagation, ContinuousAdjoint, NaiveForwardSensitivity
from comln.reproduce.measure import temporary_bytes
from tests.flow.problems import meta_gradients, query_loss, random_problem, relative_error, solve

TIGHT = Integrator(1e-10, 1e-10, max_steps=600)
IN_WEIGHTS = [Backpropagation(), Backpropagation("sqrt"), NaiveForwardSensitivity(), ContinuousAdjoint()]
EXPLICIT = [ForwardSensitivity(), *IN_WEIGHTS]
NAMES = ("initial_weights", "embeddings", "query")
MASK = jnp.array([1.0, 2.0, 0.0, 1.0, 1.0, 0.5])


def by_name(value):
    return f"{type(value).__name__}-{getattr(value, 'checkpoint', '')}"


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", IN_WEIGHTS, ids=by_name)
def test_they_agree_with_the_sweep_in_span_coordinates(meta_gradient):
    problem = random_problem()
    bound = 1e-6 if meta_gradient == ContinuousAdjoint() else 1e-7
    for horizon, proximal in ((2.0, 0.0), (100.0, 0.0), (2.0, 0.3)):
        ours = meta_gradients(problem, horizon, SpanAdjoint(), Integrator(1e-11, 1e-11), proximal, MASK)
        theirs = meta_gradients(problem, horizon, meta_gradient, TIGHT, proximal, MASK)
        for name in (*NAMES, "horizon"):
            assert relative_error(theirs[name], ours[name]) < bound, (name, horizon, proximal)


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", IN_WEIGHTS, ids=by_name)
def test_they_equal_central_differences(meta_gradient):
    problem, horizon, size = random_problem(), 2.0, 1e-3
    rng = np.random.default_rng(1)
    gradients = meta_gradients(problem, horizon, meta_gradient, TIGHT, 0.3, MASK)
    for name, gradient in gradients.items():
        direction = jnp.asarray(rng.normal(size=gradient.shape))
        direction = direction / jnp.linalg.norm(direction)

        def loss(step, name=name, direction=direction):
            if name == "horizon":
                return float(solve(problem, horizon + step * float(direction), meta_gradient, TIGHT, 0.3, MASK)[0])
            changed = problem._replace(**{name: getattr(problem, name) + step * direction})
            return float(solve(changed, horizon, meta_gradient, TIGHT, 0.3, MASK)[0])

        near, far = loss(size) - loss(-size), loss(2 * size) - loss(-2 * size)
        assert relative_error(jnp.sum(gradient * direction), (8 * near - far) / (12 * size)) < 1e-6, name


@pytest.mark.slow
def test_fewer_checkpoints_give_the_same_gradient():
    every, few = (meta_gradients(random_problem(), 20.0, Backpropagation(c), TIGHT, 0.0, MASK) for c in (None, "sqrt"))
    for name in every:
        assert relative_error(few[name], every[name]) < 1e-13, name


@functools.cache
def unrolled_gradients(steps, proximal):
    problem = random_problem()

    def support_loss(weights, initial_weights, embeddings):
        data = jnp.mean(CrossEntropy().value(embeddings @ weights.T, problem.labels))
        return data + proximal / 2 * jnp.sum((weights - initial_weights) ** 2)

    def unrolled(initial_weights, embeddings, query):
        weights = initial_weights
        for step in steps:
            weights = weights - step * jax.grad(support_loss)(weights, initial_weights, embeddings)
        return jnp.mean(CrossEntropy().value(query @ weights.T, problem.query_labels))

    return jax.jit(jax.grad(unrolled, argnums=(0, 1, 2)))(*problem[:2], problem.query)


@pytest.mark.parametrize("meta_gradient", [SpanAdjoint(), ForwardSensitivity(), *IN_WEIGHTS[:3]], ids=by_name)
@pytest.mark.parametrize("proximal", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_by_euler_steps_they_equal_unrolled_gradient_descent_with_a_shortened_last_step(meta_gradient, proximal):
    expected = unrolled_gradients((0.1,) * 12 + (0.05,), proximal)
    gradients = meta_gradients(random_problem(), 1.25, meta_gradient, Integrator.euler(0.1, max_steps=20), proximal)
    for name, reference in zip(NAMES, expected, strict=True):
        assert relative_error(gradients[name], reference) < 1e-12, name


@pytest.mark.slow
def test_the_continuous_adjoint_is_lost_where_the_others_are_not():
    problem = random_problem(smoothing=0.2, norm=4.0)
    exact = meta_gradients(problem, 50.0, SpanAdjoint(), Integrator(1e-11, 1e-11))
    for meta_gradient in (SpanAdjoint(), ForwardSensitivity(), Backpropagation()):
        gradients = meta_gradients(problem, 50.0, meta_gradient, Integrator(max_steps=600))
        assert relative_error(gradients["embeddings"], exact["embeddings"]) < 1e-3, by_name(meta_gradient)
    _, info, lost = solve(problem, 50.0, ContinuousAdjoint())
    assert info.result == FlowResult.successful
    assert relative_error(lost["embeddings"], exact["embeddings"]) > 0.01


@pytest.mark.slow
def test_a_way_back_that_runs_out_of_steps_is_nan_and_not_silently_wrong():
    # Five steps lead to the horizon, and do not lead back.
    _, info, gradients = solve(random_problem(), 5.0, ContinuousAdjoint(), Integrator(max_steps=5))
    assert info.result == FlowResult.successful
    assert bool(jnp.all(jnp.isnan(gradients["initial_weights"])))
    assert bool(jnp.all(jnp.isnan(gradients["embeddings"])))
    assert bool(jnp.isfinite(gradients["horizon"])) and bool(jnp.all(jnp.isfinite(gradients["query"])))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meta_gradient", "integrator", "proximal", "horizon"),
    [
        # Euler steps that are too long, and stages that overflow, which SpanAdjoint's implicit steps do not.
        *((m, Integrator.euler(1.0, max_steps=600), 30.0, 400.0) for m in (SpanAdjoint(), *EXPLICIT)),
        *((m, Integrator(max_steps=12), 1e150, 1.0) for m in EXPLICIT),
    ],
)
def test_what_overflows_is_a_failure_with_zero_gradients(meta_gradient, integrator, proximal, horizon):
    _, info, gradients = solve(random_problem(), horizon, meta_gradient, integrator, proximal)
    assert info.result != FlowResult.successful
    for name in ("initial_weights", "embeddings", "horizon"):
        assert float(jnp.max(jnp.abs(gradients[name]))) == 0.0, name


@pytest.mark.parametrize("meta_gradient", [SpanAdjoint(), *EXPLICIT], ids=by_name)
def test_every_matrix_product_of_the_gradient_keeps_its_precision(meta_gradient):
    problem = random_problem()

    def loss(weights, embeddings, horizon):
        integrator = Integrator(max_steps=64)
        return jnp.sum(
            gradient_flow(
                weights, embeddings, problem.labels, horizon, meta_gradient=meta_gradient, integrator=integrator
            )[0]
        )

    program = jax.jit(jax.grad(jax.jit(loss), argnums=(0, 1, 2))).lower(*problem[:2], 1.0).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", IN_WEIGHTS, ids=by_name)
def test_a_solve_that_runs_out_of_steps_harms_no_other_of_the_batch(meta_gradient):
    problem, horizons = random_problem(), jnp.array([0.5, 1e5, 1.5])

    def loss(weights, embeddings, horizon):
        changed = problem._replace(initial_weights=weights, embeddings=embeddings)
        weights, info = gradient_flow(
            weights,
            embeddings,
            changed.labels,
            horizon,
            meta_gradient=meta_gradient,
            integrator=Integrator(max_steps=12),
        )
        return jnp.sum(weights**2), info

    gradient = jax.vmap(jax.grad(loss, argnums=(0, 1), has_aux=True), in_axes=(None, None, 0))
    gradient = jax.jit(gradient)
    gradients, info = gradient(problem.initial_weights, problem.embeddings, horizons)
    without, _ = gradient(problem.initial_weights, problem.embeddings, horizons.at[1].set(0.5))
    assert [bool(x) for x in info.result == FlowResult.successful] == [True, False, True]
    for array, expected in zip(gradients, without, strict=True):
        assert float(jnp.max(jnp.abs(array[1]))) == 0.0 and float(jnp.max(jnp.abs(array[2]))) > 0.0
        np.testing.assert_allclose(array[jnp.array([0, 2])], expected[jnp.array([0, 2])], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", IN_WEIGHTS, ids=by_name)
def test_the_gradient_of_shared_weights_is_the_sum_over_the_tasks_that_did_not_fail(meta_gradient):
    problem, integrator = random_problem(), Integrator(max_steps=12)
    masks = jnp.stack([MASK, jnp.ones(6), MASK[::-1]])

    def loss(weights, horizon, mask):
        adapted, info = gradient_flow(
            weights, *problem[1:3], horizon, mask=mask, meta_gradient=meta_gradient, integrator=integrator
        )
        # A failed task is left out of the loss, as a training run does.
        return jnp.where(info.result == FlowResult.successful, jnp.sum(adapted**2), 0.0)

    def total(weights, horizons):
        return jnp.sum(jax.vmap(loss, in_axes=(None, 0, 0))(weights, horizons, masks))

    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    horizons = jnp.array([0.5, 1e5, 1.5])
    together = jax.jit(jax.grad(total))(problem.initial_weights, horizons)
    alone = each(problem.initial_weights, horizons, masks)
    np.testing.assert_allclose(together, alone[0] + alone[2], rtol=1e-12)


@pytest.mark.slow
def test_backpropagation_differentiates_the_proximal_weight_and_the_others_say_that_they_do_not():
    problem = random_problem()

    def gradient(meta_gradient):
        return jax.grad(lambda p: query_loss(problem, 2.0, meta_gradient, TIGHT, proximal=p)[0])(0.3)

    assert relative_error(gradient(Backpropagation()), gradient(SpanAdjoint())) < 1e-7
    for meta_gradient in (ContinuousAdjoint(), NaiveForwardSensitivity()):
        with pytest.raises(ValueError, match="SpanAdjoint"):
            gradient(meta_gradient)


@pytest.mark.parametrize("meta_gradient", IN_WEIGHTS, ids=by_name)
def test_what_they_cannot_follow_is_one_clear_line(meta_gradient):
    problem = random_problem()
    with pytest.raises(ValueError, match="alone"):
        solve(problem, 1.0, meta_gradient, Integrator(method=Rodas4()))
    with pytest.raises(ValueError, match="cannot follow"):
        gradient_flow(*problem[:3], jnp.inf, proximal=1.0, meta_gradient=meta_gradient)


@pytest.mark.slow
def test_memory_of_backpropagation_grows_with_the_steps_and_that_of_ours_does_not():
    problem = random_problem(size=200)

    def needed(meta_gradient, max_steps):
        def loss(weights):
            return jnp.sum(
                gradient_flow(
                    weights,
                    problem.embeddings,
                    problem.labels,
                    1.0,
                    meta_gradient=meta_gradient,
                    integrator=Integrator(max_steps=max_steps),
                )[0]
                ** 2
            )

        return temporary_bytes(jax.jit(jax.grad(loss)).lower(problem.initial_weights).compile())

    state = problem.initial_weights.nbytes
    for meta_gradient, slope in ((Backpropagation(), 900), (Backpropagation("sqrt"), 16)):
        grown = (needed(meta_gradient, 1024) - needed(meta_gradient, 64)) / state
        assert slope <= grown <= 4 * slope + 200, meta_gradient
    assert needed(SpanAdjoint(), 1024) == needed(SpanAdjoint(), 65536)


def test_the_memory_of_forward_sensitivities_without_structure_is_that_of_the_jacobians():
    problem = random_problem(size=20)
    numbers = (3 * 20) ** 2 + 3 * 20 * 6 * 20
    compiled = (
        jax.jit(
            jax.grad(
                lambda w: jnp.sum(gradient_flow(w, *problem[1:3], 1.0, meta_gradient=NaiveForwardSensitivity())[0])
            )
        )
        .lower(problem.initial_weights)
        .compile()
    )
    assert temporary_bytes(compiled) > 2 * numbers * np.dtype(np.float64).itemsize
