import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, ForwardSensitivity, Integrator, SpanAdjoint, gradient_flow
from comln.flow.integrator import Dopri5, Euler, FlowResult
from tests.flow.problems import meta_gradients, query_loss, random_problem, relative_error, solve

EXACT = [SpanAdjoint(), ForwardSensitivity()]
TIGHT = Integrator(rtol=1e-11, atol=1e-11, max_steps=100_000)


def by_class(value):
    return type(value).__name__


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_zero_horizon_returns_initial_weights(meta_gradient):
    problem = random_problem()
    weights, info = gradient_flow(
        problem.initial_weights, problem.embeddings, problem.labels, 0.0, meta_gradient=meta_gradient
    )
    assert info.result == FlowResult.successful
    np.testing.assert_array_equal(weights, problem.initial_weights)


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_at_zero_horizon_the_initial_weights_get_the_outer_gradient_and_the_support_gets_none(meta_gradient):
    problem = random_problem()
    gradients = meta_gradients(problem, 0.0, meta_gradient)

    def outer(weights):
        return jnp.mean(CrossEntropy().value(problem.query @ weights.T, problem.query_labels))

    assert relative_error(gradients["initial_weights"], jax.grad(outer)(problem.initial_weights)) < 1e-12
    assert float(jnp.max(jnp.abs(gradients["embeddings"]))) == 0.0


@pytest.mark.parametrize("horizon", [0.3, 3.0, 300.0])
def test_the_support_loss_falls_along_the_flow(horizon):
    problem = random_problem()
    on_support = problem._replace(query=problem.embeddings, query_labels=problem.labels)
    losses = [float(solve(on_support, part * horizon, SpanAdjoint())[0]) for part in (0.0, 0.5, 1.0)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("proximal", [0.0, 0.3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("horizon", [1.0, 30.0, 1000.0])
def test_span_adjoint_equals_forward_sensitivity(horizon, smoothing, proximal):
    problem = random_problem(smoothing=smoothing)
    ours = meta_gradients(problem, horizon, SpanAdjoint(), TIGHT, proximal)
    papers = meta_gradients(problem, horizon, ForwardSensitivity(), TIGHT, proximal)
    for name in ("initial_weights", "embeddings", "query"):
        assert relative_error(ours[name], papers[name]) < 1e-7, name
    # Near the equilibrium dL/dT vanishes, so that only its absolute error means something.
    assert abs(float(ours["horizon"] - papers["horizon"])) < 1e-9


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
@pytest.mark.parametrize("proximal", [0.0, 0.3])
def test_meta_gradients_equal_central_differences(meta_gradient, proximal):
    problem, horizon = random_problem(), 5.0
    rng = np.random.default_rng(1)
    gradients = meta_gradients(problem, horizon, meta_gradient, TIGHT, proximal)

    def loss(horizon, **changes):
        changed = problem._replace(**changes)
        return float(solve(changed, horizon, meta_gradient, TIGHT, proximal)[0])

    def expected(name, direction, step):
        def shifted(size):
            if name == "horizon":
                return loss(horizon + size * float(direction))
            return loss(horizon, **{name: getattr(problem, name) + size * direction})

        # Central differences of fourth order, so that their own error is below what is tested.
        near, far = shifted(step) - shifted(-step), shifted(2 * step) - shifted(-2 * step)
        return (8 * near - far) / (12 * step)

    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        direction = jnp.asarray(direction / np.linalg.norm(direction))
        assert relative_error(jnp.sum(gradient * direction), expected(name, direction, 1e-3)) < 1e-6, name


def test_proximal_weight_gradient_equals_central_differences():
    problem = random_problem()

    def loss(proximal):
        return query_loss(problem, 5.0, SpanAdjoint(), TIGHT, proximal)[0]

    def value(proximal):
        return float(solve(problem, 5.0, SpanAdjoint(), TIGHT, proximal)[0])

    expected = (value(0.3 + 1e-4) - value(0.3 - 1e-4)) / 2e-4
    assert relative_error(jax.jit(jax.grad(loss))(0.3), expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
@pytest.mark.parametrize("proximal", [0.0, 0.3])
def test_a_weight_of_two_counts_an_example_twice_and_a_weight_of_zero_not_at_all(meta_gradient, proximal):
    problem = random_problem(support=5)
    twice = problem._replace(
        embeddings=jnp.concatenate([problem.embeddings[:4], problem.embeddings[:1]]),
        labels=jnp.concatenate([problem.labels[:4], problem.labels[:1]]),
    )
    weighted = meta_gradients(problem, 5.0, meta_gradient, TIGHT, proximal, mask=jnp.array([2.0, 1.0, 1.0, 1.0, 0.0]))
    repeated = meta_gradients(twice, 5.0, meta_gradient, TIGHT, proximal)
    summed = repeated["embeddings"][:4].at[0].add(repeated["embeddings"][4])
    assert relative_error(weighted["initial_weights"], repeated["initial_weights"]) < 1e-8
    assert relative_error(weighted["embeddings"][:4], summed) < 1e-8
    assert float(jnp.max(jnp.abs(weighted["embeddings"][4]))) == 0.0


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
@pytest.mark.parametrize("norm", [1e-6, 1e6])
def test_scaling_the_embeddings_scales_time(meta_gradient, norm):
    # W -> W/k, phi -> k phi, T -> T/k^2 is the same flow of logits: same steps, rescaled weights and gradients.
    one, other = random_problem(norm=1.0), random_problem(norm=norm)
    scale = norm**0.5
    first = meta_gradients(one, 10.0, meta_gradient)
    second = meta_gradients(other, 10.0 / norm, meta_gradient)
    for name, factor in {
        "initial_weights": scale,
        "embeddings": 1 / scale,
        "query": 1 / scale,
        "horizon": norm,
    }.items():
        assert relative_error(second[name], factor * first[name]) < 1e-6, name


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_a_batch_of_tasks_equals_a_loop_over_tasks(meta_gradient):
    problems = [random_problem(seed) for seed in range(3)]
    horizons = [0.5, 20.0, 4000.0]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)

    def loss(problem, initial_weights, embeddings, horizon):
        changed = problem._replace(initial_weights=initial_weights, embeddings=embeddings)
        return query_loss(changed, horizon, meta_gradient)[0]

    gradient = jax.grad(loss, argnums=(1, 2, 3))
    together = jax.jit(jax.vmap(gradient))(stacked, stacked.initial_weights, stacked.embeddings, jnp.asarray(horizons))
    for i, (problem, horizon) in enumerate(zip(problems, horizons, strict=True)):
        alone = meta_gradients(problem, horizon, meta_gradient)
        for a, b in zip(together, (alone[n] for n in ("initial_weights", "embeddings", "horizon")), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
def test_jacobian_of_a_batch_of_tasks_equals_that_of_each():
    problems = [random_problem(seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)

    def weights(initial_weights, problem):
        return gradient_flow(initial_weights, problem.embeddings, problem.labels, 3.0)[0]

    jacobian = jax.jacrev(weights)
    together = jax.jit(jax.vmap(jacobian))(stacked.initial_weights, stacked)
    alone = jax.jit(jacobian)
    for i, problem in enumerate(problems):
        np.testing.assert_allclose(together[i], alone(problem.initial_weights, problem), rtol=1e-9, atol=1e-14)


def test_more_steps_than_are_kept_give_the_same_gradient():
    # 20,000 Euler steps make the store thin itself out seven times, and the backward pass take steps again.
    problem = random_problem(support=4, size=5)
    horizon, steps = 20.0, 20_000
    integrator = Integrator.euler(step=horizon / steps)
    ours = meta_gradients(problem, horizon, SpanAdjoint(), integrator)
    papers = meta_gradients(problem, horizon, ForwardSensitivity(), integrator)
    for name in ("initial_weights", "embeddings", "query"):
        assert relative_error(ours[name], papers[name]) < 1e-9, name
    assert int(query_loss(problem, horizon, SpanAdjoint(), integrator)[1].steps) == steps


@pytest.mark.slow
@pytest.mark.parametrize("slots", [3, 16])
def test_lanes_of_unlike_length_that_outgrow_the_store_give_the_same_gradients(slots, store_of):
    problems = [random_problem(seed, smoothing=0.1) for seed in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
    horizons, masks = jnp.array([0.0, 0.5, 30.0, 45.3]), jnp.ones((4, 6)).at[1, 2].set(0.0).at[3, 0].set(2.5)

    def gradients():
        def loss(embeddings, problem, horizon, mask):
            changed = problem._replace(embeddings=embeddings)
            value, info = query_loss(changed, horizon, SpanAdjoint(), Integrator.euler(0.3), 0.02, mask)
            return value, info.steps

        gradient = jax.vmap(jax.grad(loss, argnums=(0, 2), has_aux=True))
        return jax.jit(gradient)(stacked.embeddings, stacked, horizons, masks)

    store_of(SLOTS=4096)
    expected, steps = gradients()
    assert steps.tolist() == [0, 2, 100, 151]
    store_of(SLOTS=slots)
    actual, _ = gradients()
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_tsitouras_and_dormand_prince_agree(meta_gradient):
    problem = random_problem()
    first = meta_gradients(problem, 50.0, meta_gradient, Integrator(1e-9, 1e-9))
    second = meta_gradients(problem, 50.0, meta_gradient, Integrator(1e-9, 1e-9, method=Dopri5()))
    for name in first:
        assert relative_error(first[name], second[name]) < 1e-6, name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_permuting_the_support_permutes_its_gradient(smoothing):
    problem = random_problem(smoothing=smoothing)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    permuted = problem._replace(embeddings=problem.embeddings[order], labels=problem.labels[order])
    first, second = (meta_gradients(p, 20.0, SpanAdjoint()) for p in (problem, permuted))
    np.testing.assert_allclose(second["embeddings"], first["embeddings"][order], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(second["initial_weights"], first["initial_weights"], rtol=1e-9, atol=1e-12)


def test_gradient_compiles_once_for_all_horizons():
    problem, traces = random_problem(), []

    @jax.jit
    def loss(horizon):
        traces.append(1)
        return query_loss(problem, horizon, SpanAdjoint())[0]

    for horizon in (1.0, 2.0, 300.0):
        loss(horizon)
    assert len(traces) == 1


# Bad input: one clear line with its remedy.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": jnp.eye(3)[jnp.array([0, 1])]}, "6 embeddings and 2 labels"),
        ({"initial_weights": jnp.zeros((3, 5))}, r"shape \(way, feature\) = \(3, 8\)"),
        ({"embeddings": jnp.zeros((2, 6, 8))}, "must have two axes.*vmap"),
        ({"mask": jnp.ones(2)}, r"`mask` must have shape \(6,\)"),
        ({"embeddings": jnp.zeros((0, 8)), "labels": jnp.zeros((0, 3))}, "Give at least one labelled example"),
        ({"horizon": -1.0}, "negative or not a number"),
        ({"horizon": jnp.nan}, "negative or not a number"),
        ({"horizon": jnp.inf}, "grow for ever. Pass a finite horizon"),
        ({"mask": jnp.zeros(6)}, "No support example has a positive weight"),
        ({"mask": -jnp.ones(6)}, "No support example has a positive weight"),
        ({"embeddings": jnp.full((6, 8), jnp.nan)}, "hold a NaN, an infinity"),
        ({"embeddings": jnp.full((6, 8), 1e200)}, "squares overflow"),
        ({"proximal": jnp.inf}, "hold a NaN, an infinity"),
        ({"proximal": -0.1}, "proximal weight is negative"),
    ],
)
def test_wrong_arguments_are_named_with_their_remedy(change, message, without_type_hook):
    problem = random_problem()
    arguments = {
        "initial_weights": problem.initial_weights,
        "embeddings": problem.embeddings,
        "labels": problem.labels,
        "horizon": 1.0,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        gradient_flow(**arguments)


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_running_out_of_steps_raises_with_the_remedy(meta_gradient):
    problem = random_problem()
    with pytest.raises(RuntimeError, match="Raise `Integrator"):
        gradient_flow(
            problem.initial_weights,
            problem.embeddings,
            problem.labels,
            1e4,
            meta_gradient=meta_gradient,
            integrator=Integrator(max_steps=5),
        )


@pytest.mark.parametrize("meta_gradient", EXACT, ids=by_class)
def test_a_failed_task_of_a_batch_is_nan_with_zero_gradients_and_harms_no_other(meta_gradient):
    good = random_problem()
    bad = good._replace(embeddings=good.embeddings.at[0, 0].set(jnp.nan))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), good, bad, good)
    horizons = jnp.array([5.0, 5.0, -1.0])

    def weights(initial_weights, embeddings, problem, horizon):
        adapted, info = gradient_flow(initial_weights, embeddings, problem.labels, horizon, meta_gradient=meta_gradient)
        return jnp.sum(adapted**2), info

    gradient = jax.vmap(jax.grad(weights, argnums=(0, 1), has_aux=True))
    (for_weights, for_embeddings), info = jax.jit(gradient)(
        stacked.initial_weights, stacked.embeddings, stacked, horizons
    )
    assert (info.result == FlowResult.successful).tolist() == [True, False, False]
    assert float(jnp.max(jnp.abs(for_weights[0]))) > 0.0 and bool(jnp.all(jnp.isfinite(for_embeddings[0])))
    for failed in (1, 2):
        assert float(jnp.max(jnp.abs(for_weights[failed]))) == 0.0
        assert float(jnp.max(jnp.abs(for_embeddings[failed]))) == 0.0
    weights_out, _ = jax.vmap(lambda w, e, y, t: gradient_flow(w, e, y, t, meta_gradient=meta_gradient))(
        stacked.initial_weights, stacked.embeddings, stacked.labels, horizons
    )
    assert jnp.all(jnp.isnan(weights_out[1])) and jnp.all(jnp.isfinite(weights_out[0]))


@pytest.mark.parametrize("argument", ["labels", "mask"])
def test_a_gradient_in_labels_or_mask_is_an_error_rather_than_zero(argument):
    problem = random_problem()
    values = {"labels": problem.labels, "mask": jnp.ones(6)}

    def loss(value):
        given = {**values, argument: value}
        weights, _ = gradient_flow(
            problem.initial_weights, problem.embeddings, given["labels"], 1.0, mask=given["mask"]
        )
        return jnp.sum(weights)

    with pytest.raises(ValueError, match=f"`{argument}`.*not differentiated"):
        jax.grad(loss)(values[argument])


def test_forward_sensitivity_says_that_it_does_not_differentiate_the_proximal_weight():
    problem = random_problem()
    with pytest.raises(ValueError, match="SpanAdjoint"):
        jax.grad(lambda proximal: query_loss(problem, 1.0, ForwardSensitivity(), proximal=proximal)[0])(0.3)


@pytest.mark.parametrize("settings", [{"rtol": -1.0}, {"atol": 0.0}, {"max_steps": 0}])
def test_senseless_integrators_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        Integrator(**settings)


def test_an_euler_step_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        Euler(0.0)


@pytest.mark.slow
@pytest.mark.float32
@pytest.mark.parametrize("norm", [1.0, 1600.0])
@pytest.mark.parametrize("horizon", [1.0, 100.0])
def test_float32_forward_sensitivities_are_right_whatever_the_norm_of_the_features(norm, horizon):
    # In units of normalised time the horizons are T and norm T, the unscaled features that the literature trips over.
    with jax.enable_x64(True):
        problem = random_problem(ways=5, support=15, size=100, queries=25, norm=norm)
        expected = meta_gradients(problem, horizon, SpanAdjoint(), TIGHT)
    single = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), problem)
    gradients = meta_gradients(single, np.float32(horizon), ForwardSensitivity())
    for name in expected:
        assert gradients[name].dtype == jnp.float32
        assert relative_error(gradients[name], expected[name]) <= 1e-3, name


def test_flow_info_is_a_pytree_that_says_how_the_solve_ended():
    problem = random_problem()
    info = eqx.filter_jit(lambda p: gradient_flow(p.initial_weights, p.embeddings, p.labels, 1.0)[1])(problem)
    assert info.result == FlowResult.successful
    assert FlowResult[info.result].startswith("The flow was followed")
    assert int(info.steps) > 0


@pytest.mark.float32
def test_many_ways_are_solved_in_single_precision_however_often_they_are_compiled():
    problem = random_problem(ways=50, support=250, size=300, queries=2)
    problem = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), problem)
    for compilation in range(4):
        horizon = jnp.asarray(8.0 + compilation, jnp.float32)

        def adapt(weights, horizon=horizon):
            return gradient_flow(weights, problem.embeddings, problem.labels, horizon)

        weights, info = jax.jit(adapt)(problem.initial_weights)
        assert info.result == FlowResult.successful and info.steps < 30
        assert bool(jnp.all(jnp.isfinite(weights)))
