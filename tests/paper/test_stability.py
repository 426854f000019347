"""Appendix D: what is stable about the forward sensitivities, and in which sense.

Two solutions of one equation whose Jacobian is negative semi-definite never move apart (Propositions 7 and 8). That holds
for the weights (Proposition 10) and for the sensitivities along a given path of the weights, but not for both together
(Corollary 1, erratum E12). Bounded they are with a proximal term; without, Proposition 11 does not apply (erratum E13).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import ForwardSensitivity, Integrator, SpanAdjoint, gradient_flow
from tests.flow.problems import Problem, query_loss, random_problem, relative_error
from tests.paper import literal
from tests.paper import literal_stability as stability

SUPPORT, WAY, FEATURE = 4, 3, 5
ROUND_OFF = 1e-12
TIGHT = Integrator(rtol=1e-11, atol=1e-11, max_steps=100_000)
TOLERANCE = 1e-8

with_and_without_proximal_term = pytest.mark.parametrize("lam", [0.0, 0.3])


class Support:
    """A random support set with two points to start from, in the paper's letters."""

    rng = np.random.default_rng(0)
    W_1, W_2 = 0.3 * rng.normal(size=(2, WAY, FEATURE))
    phi = rng.normal(size=(SUPPORT, FEATURE))
    y = np.eye(WAY)[np.arange(SUPPORT) % WAY]


def separable(examples: int = 4, size: int = 12) -> Problem:
    """Return a problem whose embeddings are linearly independent, hence separable, and all of them support vectors."""
    problem = random_problem(support=examples, size=size)
    rng = np.random.default_rng(0)
    orthonormal = np.linalg.qr(rng.normal(size=(size, examples)))[0].T
    return problem._replace(embeddings=jnp.asarray(orthonormal + 0.1 * rng.normal(size=(examples, size))))


@functools.partial(jax.jit, static_argnames=["lam"])
def weights_at(horizons, W_0, phi, y, lam=0.0):
    """W(t) at many t, by the package; W_0 is the start and the anchor."""
    return jax.vmap(lambda t: gradient_flow(W_0, phi, y, t, proximal=lam, integrator=TIGHT)[0])(horizons)


@functools.partial(jax.jit, static_argnames=["lam"])
def jacobians_at(horizons, W_0, phi, y, lam=0.0):
    """dW(t)/dW_0 and dW(t)/dphi at many t, by the package."""

    def weights(W_0, phi, t):
        return gradient_flow(W_0, phi, y, t, proximal=lam, integrator=TIGHT)[0]

    return jax.vmap(jax.jacrev(weights, argnums=(0, 1)), in_axes=(None, None, 0))(W_0, phi, horizons)


def norms(matrices) -> np.ndarray:
    return np.linalg.norm(np.asarray(matrices), axis=(1, 2))


def never_rises(values: np.ndarray, slack: float) -> bool:
    return bool(np.all(np.diff(values) <= slack))


# Propositions 7 and 10: the weights


@with_and_without_proximal_term
def test_two_flows_with_one_anchor_never_move_apart(lam):
    r"""$\lVert W_1(t) - W_2(t) \rVert$ falls at least as fast as $e^{-\lambda t}$: $\theta$ is the same for both."""
    start = np.stack([Support.W_1, Support.W_2])

    def rate(pair):
        return np.stack([stability.rate_of_W(W, Support.W_1, Support.phi, Support.y, lam) for W in pair])

    horizon, steps = 10.0, 200
    pairs = np.stack(stability.trajectory(rate, start, horizon, steps))
    distances = norms(pairs[:, 0] - pairs[:, 1])
    assert never_rises(np.exp(lam * np.linspace(0, horizon, steps + 1)) * distances, ROUND_OFF)
    assert distances[-1] < 0.7 * np.exp(-lam * horizon) * distances[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_flows_of_the_package_never_move_apart(smoothing):
    problem = random_problem(smoothing=smoothing)
    rng = np.random.default_rng(1)
    horizons = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, 1e5, 60)])
    paths = [
        weights_at(horizons, jnp.asarray(start), problem.embeddings, problem.labels)
        for start in rng.normal(size=(2, *problem.initial_weights.shape))
    ]
    distances = norms(paths[0] - paths[1])
    assert never_rises(distances, TOLERANCE)
    assert distances[-1] < 0.8 * distances[0]


def test_the_rate_at_which_two_flows_approach_is_that_of_the_mean_hessian():
    r"""Equation 15, and with it the display in the proof of Proposition 8, whose difference has the wrong sign (E11)."""
    W_1, W_2, lam = Support.W_1, 4 * Support.W_2, 0.3
    h = W_2 - W_1
    rates = [stability.rate_of_W(W, Support.W_1, Support.phi, Support.y, lam) for W in (W_1, W_2)]
    mean_jacobian = -stability.mean_hessian(W_1, W_2, Support.phi, lam)
    assert relative_error((rates[1] - rates[0]).reshape(-1), mean_jacobian @ h.reshape(-1)) < 1e-10
    assert np.sum(h * (rates[1] - rates[0])) < -lam * np.sum(h * h)


@pytest.mark.parametrize("lam", [0.001, 0.01, 0.1])
def test_two_flows_each_with_its_own_anchor_may_move_apart_again_but_never_beyond_where_they_began(lam):
    r"""Initial weights that are the anchor as well: $\frac{d}{dt} \lVert h \rVert \le
    -\lambda (\lVert h \rVert - \lVert h_0 \rVert)$. Proposition 10 speaks of one anchor."""
    points, labels = jnp.array([[1.0], [-1.0]]), jnp.eye(2)
    horizons = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, 1e4, 60)])
    starts = jnp.zeros((2, 1)), jnp.array([[0.1], [-0.1]])
    paths = [weights_at(horizons, start, points, labels, lam) for start in starts]
    distances = norms(paths[0] - paths[1])
    lost = distances[0] - distances
    assert np.all(lost[1:] >= np.exp(-lam * np.diff(horizons)) * lost[:-1] - TOLERANCE)
    assert np.all(distances[1:] < distances[0])
    assert distances[-1] > 1.05 * np.min(distances)


# Proposition 8: the sensitivities along a given path of the weights


@with_and_without_proximal_term
@pytest.mark.parametrize("theta", ["W_0", "phi"])
def test_two_sensitivities_along_one_path_never_move_apart(theta, lam):
    rng = np.random.default_rng(1)
    initial = np.eye(WAY * FEATURE) if theta == "W_0" else np.zeros((WAY * FEATURE, FEATURE))

    def force(W):
        if theta == "W_0":
            return stability.force_on_S_of_W_0(W, lam)
        return stability.force_on_S_of_phi(0, W, Support.phi, Support.y)

    def rate(state):
        W, *sensitivities = state
        rates = [stability.rate_of_S(S, W, force(W), Support.phi, lam) for S in sensitivities]
        return stability.rate_of_W(W, Support.W_1, Support.phi, Support.y, lam), *rates

    horizon, steps = 8.0, 80
    start = (Support.W_1, initial, initial + rng.normal(size=initial.shape))
    path = stability.trajectory(rate, start, horizon, steps)
    growth = np.exp(lam * np.linspace(0, horizon, steps + 1))
    for order in ("fro", 2):
        distances = np.array([np.linalg.norm(S_1 - S_2, order) for _, S_1, S_2 in path])
        assert never_rises(growth * distances, 1e-10)
    assert growth[-1] * np.linalg.norm(path[-1][1] - path[-1][2]) < 0.9 * np.linalg.norm(path[0][1] - path[0][2])
    # What is measured is the sensitivity of the paper, not just any solution of a linear equation.
    W_T, S_T, _ = path[-1]
    wrt_W_0, wrt_phi = jax.jacfwd(literal.flow, argnums=(0, 1))(
        Support.W_1, Support.phi, Support.y, lam, horizon, steps
    )
    expected = wrt_W_0.reshape(W_T.size, W_T.size) if theta == "W_0" else wrt_phi[:, :, 0].reshape(W_T.size, -1)
    assert relative_error(S_T, expected) < ROUND_OFF


# Proposition 9, and erratum E11


@with_and_without_proximal_term
@pytest.mark.parametrize("theta", ["W_0", "phi"])
def test_the_sensitivity_of_the_joint_system_is_the_derivative_in_the_parameter(theta, lam):
    """Not in time, as the proof of Proposition 9 has it (E11)."""
    W_0, phi, y = map(jnp.asarray, (Support.W_1, Support.phi, Support.y))
    horizon, steps = 3.0, 20
    if theta == "W_0":
        g, parameter, S_0 = stability.field_of_W_0(phi, y, lam), W_0, jnp.eye(W_0.size)
    else:
        g, parameter, S_0 = stability.field_of_phi(W_0, y, lam), phi, jnp.zeros((W_0.size, phi.size))
    solved = jax.jit(lambda start: stability.joint_flow(start, parameter, g, horizon, steps))(stability.Joint(W_0, S_0))
    argument = ("W_0", "phi").index(theta)
    expected = jax.jacfwd(literal.flow, argnums=argument)(W_0, phi, y, lam, horizon, steps)
    assert relative_error(solved.W, literal.flow(W_0, phi, y, lam, horizon, steps)) < ROUND_OFF
    assert relative_error(solved.S, expected.reshape(solved.S.shape)) < ROUND_OFF


# Corollary 1, and erratum E12


def start_of_joint_flow(lam: float, size: float):
    """Where (17) begins for the parameter W_0, with embeddings `size` times as large and weights as much smaller."""
    phi, W_0 = jnp.asarray(size * Support.phi), jnp.asarray(Support.W_1 / size)
    return stability.Joint(W_0, jnp.eye(W_0.size)), W_0, stability.field_of_W_0(phi, jnp.asarray(Support.y), lam)


def symmetric_part(matrix) -> np.ndarray:
    return (np.asarray(matrix) + np.asarray(matrix).T) / 2


@with_and_without_proximal_term
def test_jacobian_of_weights_and_sensitivity_is_block_triangular_with_negative_diagonal_blocks(lam):
    start, W_0, g = start_of_joint_flow(lam, 4.0)
    jacobian = np.asarray(stability.joint_jacobian(start, W_0, g))
    n = W_0.size
    hessian = literal.hessian(np.asarray(W_0), 4.0 * Support.phi, lam)
    np.testing.assert_array_equal(jacobian[:n, n:], 0.0)
    assert relative_error(jacobian[:n, :n], -hessian) < ROUND_OFF
    assert relative_error(jacobian[n:, n:], -np.kron(hessian, np.eye(n))) < ROUND_OFF
    assert np.linalg.norm(jacobian[n:, :n]) > 1.0
    for block in (jacobian[:n, :n], jacobian[n:, n:]):
        assert np.linalg.eigvalsh(symmetric_part(block))[-1] < -lam + 1e-10


@with_and_without_proximal_term
def test_jacobian_of_weights_and_sensitivity_is_not_negative_semi_definite(lam):
    """Erratum E12: Propositions 7 and 8 do not apply to the system of Corollary 1, not even where it begins."""
    largest = {
        size: np.linalg.eigvalsh(symmetric_part(stability.joint_jacobian(*start_of_joint_flow(lam, size))))[-1]
        for size in (1.0, 4.0)
    }
    assert largest[4.0] > 1.0
    assert largest[1.0] < -lam + 1e-10  # it depends on the embeddings: those of norm 2 are small enough


@with_and_without_proximal_term
def test_two_joint_solutions_do_move_apart(lam):
    """Erratum E12: at first, and at the rate of the positive eigenvalue."""
    start, W_0, g = start_of_joint_flow(lam, 4.0)
    rates, directions = np.linalg.eigh(symmetric_part(stability.joint_jacobian(start, W_0, g)))
    h = 1e-6 * directions[:, -1]
    moved = stability.Joint(start.W + h[: W_0.size].reshape(W_0.shape), start.S + h[W_0.size :].reshape(start.S.shape))
    horizon = 1e-3
    flow = jax.jit(lambda state: stability.joint_flow(state, W_0, g, horizon, 4))
    first, second = flow(start), flow(moved)
    distance = np.sqrt(np.sum((second.W - first.W) ** 2) + np.sum((second.S - first.S) ** 2))
    assert np.log(distance / 1e-6) / horizon == pytest.approx(rates[-1], rel=0.05)


# Proposition 11, and erratum E13


@pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
def test_a_proximal_term_bounds_the_weights(lam):
    problem = separable()
    arguments = (problem.initial_weights, problem.embeddings, problem.labels)
    bound = stability.farthest_displacement(float(literal.cross_entropy(*arguments)), lam)
    horizons = jnp.geomspace(1e-2, 1e6, 40)
    assert np.all(norms(weights_at(horizons, *arguments, lam) - problem.initial_weights) <= bound)
    unbounded = norms(weights_at(horizons, *arguments) - problem.initial_weights)
    assert unbounded[-1] > bound
    at_rest, _ = gradient_flow(*arguments, jnp.inf, proximal=lam)
    # At rest the bound is better by a factor sqrt(2), for the regularised loss is strongly convex.
    assert np.linalg.norm(at_rest - problem.initial_weights) <= bound / np.sqrt(2)


def test_a_proximal_term_bounds_the_sensitivities():
    r"""$\lVert S(t) \rVert_2 \le \max_{s \le t} \lVert \partial g / \partial\phi_m \rVert_2 (1 - e^{-\lambda t}) /
    \lambda$."""
    lam, m = 0.3, 0

    def rate(state):
        W, S = state
        force = stability.force_on_S_of_phi(m, W, Support.phi, Support.y)
        return (
            stability.rate_of_W(W, Support.W_1, Support.phi, Support.y, lam),
            stability.rate_of_S(S, W, force, Support.phi, lam),
        )

    horizon, steps = 20.0, 150
    path = stability.trajectory(rate, (Support.W_1, np.zeros((WAY * FEATURE, FEATURE))), horizon, steps)
    times = np.linspace(0, horizon, steps + 1)
    forces = [np.linalg.norm(stability.force_on_S_of_phi(m, W, Support.phi, Support.y), 2) for W, _ in path]
    sensitivities = np.array([np.linalg.norm(S, 2) for _, S in path])
    bounds = np.maximum.accumulate(forces) * (1 - np.exp(-lam * times)) / lam
    assert np.all(sensitivities <= bounds + 1e-3 * bounds[-1])
    assert sensitivities[-1] > 0.1 * bounds[-1]


def test_two_points_grow_apart_by_half_a_logarithm_of_time():
    """By hand: w + (exp(2 w) - 1) / 2 = T, hence w = log(2 T) / 2 + o(1)."""
    points, labels = jnp.array([[1.0], [-1.0]]), jnp.eye(2)
    horizons = 10.0 ** jnp.arange(1, 6)
    w = np.asarray(weights_at(horizons, jnp.zeros((2, 1)), points, labels))
    np.testing.assert_allclose(w[:, 0], -w[:, 1], rtol=1e-12)
    np.testing.assert_allclose(stability.time_to_reach(w[:, 0, 0]), horizons, rtol=1e-7)
    growth = np.diff(w[:, 0, 0]) / np.log(10)
    np.testing.assert_allclose(growth[-1], 0.5, rtol=1e-3)
    assert never_rises(np.abs(growth - 0.5), 0.0)
    np.testing.assert_allclose(stability.max_margin_weights(points[:1], labels[:1]), [[0.5], [-0.5]], rtol=1e-12)


def test_weights_of_separable_examples_grow_like_the_logarithm_of_time_for_ever():
    r"""Erratum E13: $W(10 T) - W(T) \to \hat W \log 10$, with $\hat W$ the weights of largest margin."""
    problem = separable()
    multipliers = stability.margin_multipliers(problem.embeddings, problem.labels)
    assert float(jnp.max(multipliers[problem.labels == 0.0])) < 0.0  # the constraints are tight, all of them
    expected = stability.max_margin_weights(problem.embeddings, problem.labels)
    horizons = 10.0 ** jnp.arange(1, 6)
    W = weights_at(horizons, problem.initial_weights, problem.embeddings, problem.labels)
    growth = np.diff(W, axis=0) / np.log(10)
    errors = [relative_error(part, expected) for part in growth]
    assert never_rises(np.array(errors), 0.0)
    assert errors[-1] < 0.01
    # The norm grows by as much in each of the last decades: it neither dies out nor accelerates.
    per_decade = np.diff(norms(W))
    np.testing.assert_allclose(per_decade[-2:], float(jnp.linalg.norm(expected)) * np.log(10), rtol=0.02)


def test_sensitivities_of_separable_examples_grow_like_the_logarithm_of_time_for_ever():
    r"""Erratum E13: the derivative of the above in the embeddings; $dW / dW_0$ stays bounded even so."""
    problem = separable()
    expected = jax.jacfwd(stability.max_margin_weights)(problem.embeddings, problem.labels)
    horizons = 10.0 ** jnp.arange(3, 6)
    wrt_W_0, wrt_phi = jacobians_at(horizons, problem.initial_weights, problem.embeddings, problem.labels)
    growth = np.diff(wrt_phi, axis=0) / np.log(10)
    errors = [relative_error(part, expected) for part in growth]
    assert never_rises(np.array(errors), 0.0)
    assert errors[-1] < 0.01
    size = problem.initial_weights.size
    assert np.all(np.linalg.norm(np.asarray(wrt_W_0).reshape(-1, size, size), 2, axis=(1, 2)) < 1 + TOLERANCE)


def test_weights_of_examples_with_smoothed_labels_stop_growing():
    """The minimiser is finite, as Proposition 11 presumes."""
    problem = separable()
    labels = 0.9 * problem.labels + 0.1 / problem.labels.shape[1]
    horizons = 10.0 ** jnp.arange(1, 6)
    W = weights_at(horizons, problem.initial_weights, problem.embeddings, labels)
    assert norms(np.diff(W, axis=0))[-1] < 1e-6


# Invariants of the package's own flow


@with_and_without_proximal_term
def test_no_direction_of_the_initial_weights_is_amplified(lam):
    r"""$\lVert dW(t) / dW_0 \rVert_2 \le 1$ at any time, and without proximal term no singular value ever rises."""
    problem = random_problem()
    horizons = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.1, 1e4, 16)])
    wrt_W_0, _ = jacobians_at(horizons, problem.initial_weights, problem.embeddings, problem.labels, lam)
    size = problem.initial_weights.size
    singular = np.linalg.svd(np.asarray(wrt_W_0).reshape(-1, size, size), compute_uv=False)
    assert np.max(singular) < 1 + TOLERANCE
    assert np.min(singular[-1]) < 0.9  # but some are damped
    if lam == 0.0:
        assert np.all(np.diff(singular, axis=0) < TOLERANCE)


@with_and_without_proximal_term
def test_adaptation_leaves_the_sum_over_ways_as_it_is(lam):
    problem = random_problem()
    W = weights_at(jnp.array([0.3, 30.0, 3e3]), problem.initial_weights, problem.embeddings, problem.labels, lam)
    moved = W - problem.initial_weights
    assert float(jnp.min(jnp.max(jnp.abs(moved), axis=(1, 2)))) > 1e-2
    np.testing.assert_allclose(jnp.sum(moved, axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("meta_gradient", [SpanAdjoint(), ForwardSensitivity()], ids=lambda value: type(value).__name__)
@with_and_without_proximal_term
def test_flow_and_meta_gradients_scale_with_the_units_of_the_embeddings(lam, meta_gradient):
    r"""With $K' = K / c^2$, $t' = c^2 t$, $\lambda' = \lambda / c^2$: $W' = c W$, and each gradient in its own units."""
    c, horizon = 2.5, 5.0
    one = random_problem()
    other = one._replace(initial_weights=c * one.initial_weights, embeddings=one.embeddings / c, query=one.query / c)
    differentiable = isinstance(meta_gradient, SpanAdjoint) and lam > 0

    def gradients(problem, horizon, lam):
        def loss(initial_weights, embeddings, query, horizon, lam):
            changed = problem._replace(initial_weights=initial_weights, embeddings=embeddings, query=query)
            return query_loss(changed, horizon, meta_gradient, TIGHT, lam)[0]

        arguments = (problem.initial_weights, problem.embeddings, problem.query, horizon)
        if differentiable:
            return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3, 4)))(*arguments, lam)
        return jax.jit(jax.grad(functools.partial(loss, lam=lam), argnums=(0, 1, 2, 3)))(*arguments)

    first, second = gradients(one, horizon, lam), gradients(other, c**2 * horizon, lam / c**2)
    for a, b, factor in zip(first, second, (1 / c, c, c, c**-2, c**2), strict=False):
        assert relative_error(b, factor * a) < TOLERANCE
    W, scaled = (
        gradient_flow(
            p.initial_weights, p.embeddings, p.labels, t, proximal=weight, meta_gradient=meta_gradient, integrator=TIGHT
        )[0]
        for p, t, weight in ((one, horizon, lam), (other, c**2 * horizon, lam / c**2))
    )
    assert relative_error(scaled, c * W) < 1e-10
