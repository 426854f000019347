"""Appendix D: what is stable about the forward sensitivities, and in which sense.

Two solutions of one equation whose Jacobian is negative semi-definite never move apart (Propositions 7 and 8). That is
so for the weights (Proposition 10) and for the sensitivities along a given path of the weights, but not for both
together (Corollary 1, erratum E12). A proximal term keeps both bounded; without one, and separable examples, the
weights grow for ever (Proposition 11, erratum E13).
"""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from comln import ForwardSensitivity, Integrator, gradient_flow
from tests.flow.problems import Problem, random_problem, relative_error
from tests.paper import literal
from tests.paper import literal_stability as stability

SUPPORT, WAY, FEATURE = 4, 3, 5
HORIZON, STEPS = 4.0, 25
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


def separable() -> Problem:
    """Return a problem whose embeddings are linearly independent, hence separable, and all of them support vectors."""
    problem = random_problem()
    rng = np.random.default_rng(0)
    orthonormal = np.linalg.qr(rng.normal(size=problem.embeddings.T.shape))[0].T
    return problem._replace(embeddings=jnp.asarray(orthonormal + 0.05 * rng.normal(size=orthonormal.shape)))


def weights_at(horizons, W_0, phi, y, lam=0.0) -> np.ndarray:
    """W(t) at many t, by the package; W_0 is the start and the anchor."""
    start, phi, y, weight = map(jnp.asarray, (W_0, phi, y, lam))  # as an array lambda shares one program with zero
    return np.stack([gradient_flow(start, phi, y, float(t), proximal=weight, integrator=TIGHT)[0] for t in horizons])


@jax.jit
def pull_back(V, W_0, phi, y, horizon, lam):
    """The meta-gradients of W_0, phi and T by the package's forward sensitivities, for the outer gradient V."""

    def outer(W_0, phi, horizon):
        weights, _ = gradient_flow(
            W_0, phi, y, horizon, proximal=lam, meta_gradient=ForwardSensitivity(), integrator=TIGHT
        )
        return jnp.sum(V * weights)

    return jax.grad(outer, argnums=(0, 1, 2))(W_0, phi, horizon)


def jacobians_at(horizons, problem: Problem, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """dW(t)/dW_0 and dW(t)/dphi at many t, by the package. Shapes (t, Nd, Nd) and (t, Nd, Md)."""
    size = problem.initial_weights.size
    units = np.eye(size).reshape(size, *problem.initial_weights.shape)
    arguments = (problem.initial_weights, problem.embeddings, problem.labels)
    rows = [[pull_back(V, *arguments, float(t), lam)[:2] for V in units] for t in horizons]
    wrt_W_0, wrt_phi = (np.array([[np.ravel(row[i]) for row in block] for block in rows]) for i in (0, 1))
    return wrt_W_0, wrt_phi


@functools.partial(jax.jit, static_argnames="theta")
def jointly_and_by_automatic_differentiation(lam, theta):
    """W(T) and dW(T)/dtheta, from (17) and from the derivative of the flow."""
    W_0, phi, y = map(jnp.asarray, (Support.W_1, Support.phi, Support.y))
    if theta == "W_0":
        g, parameter, S_0 = stability.field_of_W_0(phi, y, lam), W_0, jnp.eye(W_0.size)
    else:
        g, parameter, S_0 = stability.field_of_phi(W_0, y, lam), phi, jnp.zeros((W_0.size, phi.size))
    solved = stability.joint_flow(stability.Joint(W_0, S_0), parameter, g, HORIZON, STEPS)
    derivative = jax.jacfwd(literal.flow, argnums=("W_0", "phi").index(theta))(W_0, phi, y, lam, HORIZON, STEPS)
    return solved, (literal.flow(W_0, phi, y, lam, HORIZON, STEPS), derivative)


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

    horizon, steps = 10.0, 100
    pairs = np.stack(stability.trajectory(rate, start, horizon, steps))
    distances = norms(pairs[:, 0] - pairs[:, 1])
    assert never_rises(np.exp(lam * np.linspace(0, horizon, steps + 1)) * distances, ROUND_OFF)
    assert distances[-1] < 0.95 * np.exp(-lam * horizon) * distances[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_flows_of_the_package_never_move_apart(smoothing):
    problem = random_problem(smoothing=smoothing)
    rng = np.random.default_rng(1)
    horizons = np.concatenate([[0.0], np.geomspace(1e-2, 1e5, 60)])
    paths = [
        weights_at(horizons, start, problem.embeddings, problem.labels)
        for start in rng.normal(size=(2, *problem.initial_weights.shape))
    ]
    distances = norms(paths[0] - paths[1])
    assert never_rises(distances, TOLERANCE)
    assert distances[-1] < 0.9 * distances[0]


def test_the_rate_at_which_two_flows_approach_is_that_of_the_mean_hessian():
    r"""Equation 15, and the first display in the proof of Proposition 8, which swaps the points (E11)."""
    W_1, W_2, lam = Support.W_1, 4 * Support.W_2, 0.3
    h = W_2 - W_1
    rates = [stability.rate_of_W(W, Support.W_1, Support.phi, Support.y, lam) for W in (W_1, W_2)]
    mean_jacobian = -stability.mean_hessian(W_1, W_2, Support.phi, lam)
    assert relative_error((rates[1] - rates[0]).reshape(-1), mean_jacobian @ h.reshape(-1)) < 1e-10
    assert np.sum(h * (rates[1] - rates[0])) < -lam * np.sum(h * h)


@pytest.mark.parametrize("lam", [0.001, 0.01])
def test_two_flows_each_with_its_own_anchor_may_move_apart_again_but_never_beyond_where_they_began(lam):
    r"""Initial weights that are the anchor as well: $\frac{d}{dt} \lVert h \rVert \le
    -\lambda (\lVert h \rVert - \lVert h_0 \rVert)$. Proposition 10 speaks of one anchor."""
    corners, labels = np.eye(8)[[0, 1, 2, 0, 1, 2]], np.eye(3)[[0, 1, 2, 0, 1, 2]]
    horizons = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 60)])
    starts = np.zeros((3, 8)), 0.1 * (np.eye(3, 8) - np.eye(8)[:3].mean(axis=0))
    paths = [weights_at(horizons, start, corners, labels, lam) for start in starts]
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

    horizon, steps = HORIZON, STEPS
    start = (Support.W_1, initial, initial + rng.normal(size=initial.shape))
    path = stability.trajectory(rate, start, horizon, steps)
    growth = np.exp(lam * np.linspace(0, horizon, steps + 1))
    for order in ("fro", 2):
        distances = np.array([np.linalg.norm(S_1 - S_2, order) for _, S_1, S_2 in path])
        assert never_rises(growth * distances, 1e-10)
    assert growth[-1] * np.linalg.norm(path[-1][1] - path[-1][2]) < 0.9 * np.linalg.norm(path[0][1] - path[0][2])
    # What is measured is the sensitivity of the paper, not just any solution of a linear equation.
    _, (_, derivative) = jointly_and_by_automatic_differentiation(lam, theta)
    expected = derivative if theta == "W_0" else derivative[:, :, 0]
    assert relative_error(path[-1][1], expected.reshape(initial.shape)) < ROUND_OFF


# Proposition 9, and erratum E11


@with_and_without_proximal_term
@pytest.mark.parametrize("theta", ["W_0", "phi"])
def test_the_sensitivity_of_the_joint_system_is_the_derivative_in_the_parameter(theta, lam):
    """Not in time, as the proof of Proposition 9 has it (E11)."""
    solved, (W_T, S_T) = jointly_and_by_automatic_differentiation(lam, theta)
    assert relative_error(solved.W, W_T) < ROUND_OFF
    assert relative_error(solved.S, S_T.reshape(solved.S.shape)) < ROUND_OFF


# Corollary 1, and erratum E12


def start_of_joint_flow(lam, size):
    """Where (17) begins for the parameter W_0, with embeddings `size` times as large and weights as much smaller."""
    W_0, phi, y = map(jnp.asarray, (Support.W_1 / size, size * Support.phi, Support.y))
    return stability.Joint(W_0, jnp.eye(W_0.size)), W_0, stability.field_of_W_0(phi, y, lam)


@jax.jit
def jacobian_at_start(lam, size):
    return stability.joint_jacobian(*start_of_joint_flow(lam, size))


@jax.jit
def joint_solution(lam, h, horizon):
    """[W(t), S(t)] as one vector, from the beginning moved by h."""
    start, W_0, g = start_of_joint_flow(lam, 4.0)
    flat, unflatten = jax.flatten_util.ravel_pytree(start)
    return jax.flatten_util.ravel_pytree(stability.joint_flow(unflatten(flat + h), W_0, g, horizon, 4))[0]


def symmetric_part(matrix) -> np.ndarray:
    return (np.asarray(matrix) + np.asarray(matrix).T) / 2


@with_and_without_proximal_term
def test_jacobian_of_weights_and_sensitivity_is_block_triangular_with_negative_diagonal_blocks(lam):
    jacobian = np.asarray(jacobian_at_start(lam, 4.0))
    n = Support.W_1.size
    hessian = literal.hessian(Support.W_1 / 4.0, 4.0 * Support.phi, lam)
    np.testing.assert_array_equal(jacobian[:n, n:], 0.0)
    assert relative_error(jacobian[:n, :n], -hessian) < ROUND_OFF
    assert relative_error(jacobian[n:, n:], -np.kron(hessian, np.eye(n))) < ROUND_OFF
    assert np.linalg.norm(jacobian[n:, :n]) > 1.0
    for block in (jacobian[:n, :n], jacobian[n:, n:]):
        assert np.linalg.eigvalsh(symmetric_part(block))[-1] < -lam + 1e-10


@with_and_without_proximal_term
def test_jacobian_of_weights_and_sensitivity_is_not_negative_semi_definite(lam):
    """Erratum E12: Propositions 7 and 8 do not apply to the system of Corollary 1, not even where it begins."""
    small, large = (np.linalg.eigvalsh(symmetric_part(jacobian_at_start(lam, size)))[-1] for size in (0.5, 4.0))
    assert large > 1.0
    assert small < -lam + 1e-10  # the sign depends on the embeddings: these are small enough


@with_and_without_proximal_term
def test_two_joint_solutions_do_move_apart(lam):
    """Erratum E12: at first, and at the rate of the positive eigenvalue."""
    rates, directions = np.linalg.eigh(symmetric_part(jacobian_at_start(lam, 4.0)))
    distance, horizon = 1e-6, 1e-3
    difference = joint_solution(lam, distance * directions[:, -1], horizon) - joint_solution(lam, 0.0, horizon)
    later = np.linalg.norm(difference)
    assert np.log(later / distance) / horizon == pytest.approx(rates[-1], rel=0.05)


# Proposition 11, and erratum E13


@pytest.mark.parametrize("lam", [0.01, 0.1, 1.0])
def test_a_proximal_term_bounds_the_weights(lam):
    problem = separable()
    arguments = (problem.initial_weights, problem.embeddings, problem.labels)
    start = np.asarray(problem.initial_weights)
    bound = stability.farthest_displacement(float(literal.cross_entropy(*arguments)), lam)
    horizons = np.geomspace(1e-2, 1e6, 40)
    assert np.all(norms(weights_at(horizons, *arguments, lam) - start) <= bound)
    unbounded = norms(weights_at(horizons, *arguments) - start)
    assert unbounded[-1] > bound
    at_rest = weights_at([1e300], *arguments, lam)[0]
    # At rest the bound is better by a factor sqrt(2), for the regularised loss is strongly convex.
    assert np.linalg.norm(at_rest - start) <= bound / np.sqrt(2)


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

    horizon, steps = 20.0, 100
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
    horizons = 10.0 ** np.arange(1, 6)
    w = np.stack([gradient_flow(jnp.zeros((2, 1)), points, labels, float(t), integrator=TIGHT)[0] for t in horizons])
    np.testing.assert_allclose(w[:, 0], -w[:, 1], rtol=1e-12)
    np.testing.assert_allclose([stability.time_to_reach(float(x)) for x in w[:, 0, 0]], horizons, rtol=1e-7)
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
    horizons = 10.0 ** np.arange(1, 6)
    W = weights_at(horizons, problem.initial_weights, problem.embeddings, problem.labels)
    growth = np.diff(W, axis=0) / np.log(10)
    errors = [relative_error(part, expected) for part in growth]
    assert never_rises(np.array(errors), 0.0)
    assert errors[-1] < 0.01
    # The norm grows by as much in each of the last decades: it neither dies out nor accelerates.
    per_decade = np.diff(norms(W))
    np.testing.assert_allclose(per_decade[-2:], float(jnp.linalg.norm(expected)) * np.log(10), rtol=0.02)


@pytest.mark.slow
def test_sensitivities_of_separable_examples_grow_like_the_logarithm_of_time_for_ever():
    r"""Erratum E13: $dW / d\phi$ as the derivative of the above; $dW / dW_0$ stays bounded even so."""
    problem = separable()
    expected = jax.jit(jax.jacfwd(stability.max_margin_weights))(problem.embeddings, problem.labels)
    wrt_W_0, wrt_phi = jacobians_at([1e5, 1e6, 1e7], problem, 0.0)
    growth = np.diff(wrt_phi, axis=0) / np.log(10)
    errors = [relative_error(part.ravel(), expected.ravel()) for part in growth]
    assert never_rises(np.array(errors), 0.0)
    assert errors[-1] < 0.03
    assert np.all(np.linalg.norm(wrt_W_0, 2, axis=(1, 2)) < 1 + TOLERANCE)


def test_weights_of_examples_with_smoothed_labels_stop_growing():
    """The minimiser is finite, as Proposition 11 presumes."""
    problem = separable()
    labels = 0.9 * problem.labels + 0.1 / problem.labels.shape[1]
    horizons = 10.0 ** np.arange(1, 6)
    W = weights_at(horizons, problem.initial_weights, problem.embeddings, labels)
    assert norms(np.diff(W, axis=0))[-1] < 1e-6


# Invariants of the package's own flow


@with_and_without_proximal_term
def test_no_direction_of_the_initial_weights_is_amplified(lam):
    r"""$\lVert dW(t) / dW_0 \rVert_2 \le 1$ at any time, and without proximal term no singular value ever rises."""
    problem = random_problem()
    horizons = [0.0, 0.1, 1.0, 10.0, 100.0]
    wrt_W_0, _ = jacobians_at(horizons, problem, lam)
    singular = np.linalg.svd(wrt_W_0, compute_uv=False)
    assert np.max(singular) < 1 + TOLERANCE
    assert np.min(singular[-1]) < 0.9  # but some are damped
    if lam == 0.0:
        assert np.all(np.diff(singular, axis=0) < TOLERANCE)


@with_and_without_proximal_term
def test_adaptation_leaves_the_sum_over_ways_as_it_is(lam):
    problem = random_problem()
    W = weights_at([0.3, 30.0, 3e3], problem.initial_weights, problem.embeddings, problem.labels, lam)
    moved = W - np.asarray(problem.initial_weights)
    assert np.min(norms(moved)) > 1e-2
    np.testing.assert_allclose(np.sum(moved, axis=1), 0.0, atol=1e-12)


@with_and_without_proximal_term
def test_flow_and_meta_gradients_scale_with_the_units_of_the_embeddings(lam):
    r"""With $K' = K / c^2$, $t' = c^2 t$, $\lambda' = \lambda / c^2$: $W' = c W$, each gradient in its own units."""
    c, horizon = 2.5, 5.0
    W_0, phi, y = random_problem()[:3]
    V = jnp.asarray(np.random.default_rng(1).normal(size=W_0.shape))
    first = pull_back(V, W_0, phi, y, horizon, lam)
    second = pull_back(V / c, c * W_0, phi / c, y, c**2 * horizon, lam / c**2)
    for a, b, factor in zip(first, second, (1 / c, c, 1 / c**2), strict=True):
        assert relative_error(b, factor * a) < TOLERANCE
    W, scaled = weights_at([horizon], W_0, phi, y, lam), weights_at([c**2 * horizon], c * W_0, phi / c, y, lam / c**2)
    assert relative_error(scaled, c * W) < 1e-10
