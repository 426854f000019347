"""The propositions of the paper hold, for any proximal weight and any labels; what it misprints does not.

The oracle is automatic differentiation through the same Runge-Kutta steps of the flow of W, which knows nothing of the
decomposition. Agreement is then a matter of round-off, except for the gradient of the horizon (Proposition 4), which
belongs to the continuous flow and agrees up to the truncation error of the method.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.paper import literal

SUPPORT, WAY, FEATURE, QUERY = 4, 3, 5, 6
HORIZON, STEPS = 1.7, 20
ROUND_OFF = 1e-12
TRUNCATION = 1e-6


class Task(NamedTuple):
    """A random task, in the paper's letters."""

    W_0: np.ndarray
    phi: np.ndarray
    y: np.ndarray
    phi_query: np.ndarray
    y_query: np.ndarray
    lam: float


class Derivatives(NamedTuple):
    """What automatic differentiation says about one task."""

    weights: np.ndarray
    weights_wrt_W_0: np.ndarray
    weights_wrt_phi: np.ndarray
    loss_wrt_W_0: np.ndarray
    loss_wrt_phi: np.ndarray
    loss_wrt_phi_query: np.ndarray
    loss_wrt_T: np.ndarray


def random_task(lam: float, smoothing: float) -> Task:
    rng = np.random.default_rng(0)
    one_hot = np.eye(WAY)
    return Task(
        W_0=0.3 * rng.normal(size=(WAY, FEATURE)),
        phi=rng.normal(size=(SUPPORT, FEATURE)),
        y=(1 - smoothing) * one_hot[np.arange(SUPPORT) % WAY] + smoothing / WAY,
        phi_query=rng.normal(size=(QUERY, FEATURE)),
        y_query=one_hot[np.arange(QUERY) % WAY],
        lam=lam,
    )


def outer_loss(W_0, phi, phi_query, T, y, y_query, lam):
    """The meta-objective (7) of one task: cross-entropy of the query examples at W(T)."""
    return literal.cross_entropy(literal.flow(W_0, phi, y, lam, T, STEPS), phi_query, y_query)


def outer_loss_with_proximal_term(W_0, phi, phi_query, T, y, y_query, lam):
    """What the meta-objective would be if its loss, too, were the regularised one (14)."""
    W = literal.flow(W_0, phi, y, lam, T, STEPS)
    return literal.regularised_loss(W, W_0, phi_query, y_query, lam)


@jax.jit
def differentiate(W_0, phi, phi_query, T, y, y_query, lam):
    weights = literal.flow(W_0, phi, y, lam, T, STEPS)
    jacobians = jax.jacrev(literal.flow, argnums=(0, 1))(W_0, phi, y, lam, T, STEPS)
    gradients = jax.grad(outer_loss, argnums=(0, 1, 2, 3))(W_0, phi, phi_query, T, y, y_query, lam)
    return weights, *jacobians, *gradients


def relative_error(actual, expected) -> float:
    return float(np.linalg.norm(np.asarray(actual) - np.asarray(expected)) / np.linalg.norm(np.asarray(expected)))


def sensitivities_wrt_phi(state: literal.State, task: Task) -> np.ndarray:
    """All dW/dphi_m of Proposition 3, in the axes of automatic differentiation: (N, d, M, d)."""
    jacobians = [literal.jacobian_wrt_phi(m, state, task.W_0, task.phi) for m in range(SUPPORT)]
    return np.stack(jacobians, axis=1).reshape(WAY, FEATURE, SUPPORT, FEATURE)


def projections_onto_phi(V: np.ndarray, state: literal.State, task: Task) -> np.ndarray:
    return np.stack([literal.project_onto_phi(m, V, state, task.W_0, task.phi) for m in range(SUPPORT)])


PROXIMAL_WEIGHTS = {"no proximal term": 0.0, "proximal term": 0.3}
SMOOTHINGS = {"one-hot": 0.0, "smoothed": 0.1}
SETTINGS = {
    f"{proximal}, {labels}": (PROXIMAL_WEIGHTS[proximal], SMOOTHINGS[labels])
    for proximal, labels in itertools.product(PROXIMAL_WEIGHTS, SMOOTHINGS)
}


@functools.cache
def solved(lam: float, smoothing: float) -> literal.State:
    task = random_task(lam, smoothing)
    return literal.solve(task.W_0, task.phi, task.y, task.lam, HORIZON, STEPS)


@functools.cache
def differentiated(lam: float, smoothing: float) -> Derivatives:
    task = random_task(lam, smoothing)
    derivatives = differentiate(task.W_0, task.phi, task.phi_query, HORIZON, task.y, task.y_query, task.lam)
    return Derivatives(*map(np.asarray, derivatives))


@pytest.fixture(params=list(SETTINGS.values()), ids=list(SETTINGS))
def setting(request) -> tuple[float, float]:
    return request.param


@pytest.fixture
def task(setting) -> Task:
    return random_task(*setting)


@pytest.fixture
def state(setting) -> literal.State:
    return solved(*setting)


@pytest.fixture
def derivatives(setting) -> Derivatives:
    return differentiated(*setting)


@pytest.fixture
def W_T(task, state) -> np.ndarray:
    return literal.weights(state.s, task.W_0, task.phi)


@pytest.fixture
def V(task, W_T) -> np.ndarray:
    return literal.cross_entropy_gradient(W_T, task.phi_query, task.y_query)


with_proximal_term = pytest.mark.parametrize(
    "setting", [(0.3, smoothing) for smoothing in SMOOTHINGS.values()], ids=list(SMOOTHINGS), indirect=True
)


# Lemma 1


def test_gradient_of_lemma_1_is_the_gradient_of_the_loss(task):
    W = 2.0 * task.W_0 + 0.1
    expected = jax.grad(literal.regularised_loss)(W, task.W_0, task.phi, task.y, task.lam)
    assert relative_error(literal.gradient(W, task.W_0, task.phi, task.y, task.lam), expected) < ROUND_OFF


def test_hessian_of_lemma_1_is_the_hessian_of_the_loss(task):
    W = 2.0 * task.W_0 + 0.1
    expected = jax.hessian(literal.regularised_loss)(W, task.W_0, task.phi, task.y, task.lam)
    expected = np.asarray(expected).reshape(W.size, W.size)
    assert relative_error(literal.hessian(W, task.phi, task.lam), expected) < ROUND_OFF


# Proposition 1


def test_weights_move_in_the_span_of_the_embeddings(derivatives, W_T):
    assert relative_error(W_T, derivatives.weights) < ROUND_OFF


def test_adaptation_needs_neither_B_nor_z(task, state):
    s = literal.solve_for_adaptation(task.W_0, task.phi, task.y, task.lam, HORIZON, STEPS)
    np.testing.assert_array_equal(s, state.s)


# Proposition 2


def test_B_rebuilds_the_jacobian_wrt_initial_weights(task, state, derivatives, W_T):
    expected = derivatives.weights_wrt_W_0.reshape(W_T.size, W_T.size)
    assert relative_error(literal.jacobian_wrt_W_0(state.B, task.phi), expected) < ROUND_OFF


def test_rate_of_B_satisfies_the_forward_sensitivity_equation(task):
    r"""$\dot S = -\nabla^2\mathcal L\, S + \lambda I$ for any $s$ and $B$, not only along a solution."""
    rng = np.random.default_rng(1)
    s, B = rng.normal(size=(SUPPORT, WAY)), rng.normal(size=(SUPPORT, SUPPORT, WAY, WAY))
    W = literal.weights(s, task.W_0, task.phi)
    A = literal.curvatures(literal.probabilities(W, task.phi))
    identity = np.eye(W.size)
    # The rebuilt Jacobian is affine in B: its rate is the rebuilt rate without the constant I.
    rate = literal.jacobian_wrt_W_0(literal.rate_of_B(B, A, task.phi, task.lam), task.phi) - identity
    expected = -literal.hessian(W, task.phi, task.lam) @ literal.jacobian_wrt_W_0(B, task.phi) + task.lam * identity
    assert relative_error(rate, expected) < ROUND_OFF


# Proposition 3, and erratum E1


def test_s_B_and_z_rebuild_the_jacobian_wrt_embeddings(task, state, derivatives):
    assert relative_error(sensitivities_wrt_phi(state, task), derivatives.weights_wrt_phi) < ROUND_OFF


@pytest.mark.parametrize("m", range(SUPPORT))
def test_rate_of_z_satisfies_the_forward_sensitivity_equation(task, m):
    r"""$\dot S = -\nabla^2\mathcal L\, S - A_m W \otimes \phi_m - \frac1M (p_m - y_m) \otimes I_d$ for any state."""
    rng = np.random.default_rng(1)
    state = literal.State(*(rng.normal(size=part.shape) for part in literal.initial_state(SUPPORT, WAY)))
    W = literal.weights(state.s, task.W_0, task.phi)
    p = literal.probabilities(W, task.phi)
    A = literal.curvatures(p)
    rates = literal.dynamics(state, task.W_0, task.phi, task.y, task.lam)
    rate = literal.jacobian_wrt_phi(m, rates, task.W_0, task.phi)
    through_prediction = np.kron(A[m] @ W, literal.column(task.phi[m]))
    through_embedding = np.kron(literal.column(p[m] - task.y[m]), np.eye(FEATURE)) / SUPPORT
    sensitivity = literal.jacobian_wrt_phi(m, state, task.W_0, task.phi)
    expected = -literal.hessian(W, task.phi, task.lam) @ sensitivity - through_prediction - through_embedding
    assert relative_error(rate, expected) < ROUND_OFF


@with_proximal_term
def test_proximal_decay_of_z_inside_the_curvature_is_wrong(task, derivatives):
    """Erratum E1: Proposition 3 as printed."""
    printed = literal.solve(
        task.W_0, task.phi, task.y, task.lam, HORIZON, STEPS, rate_of_z=literal.rate_of_z_as_printed
    )
    assert relative_error(sensitivities_wrt_phi(printed, task), derivatives.weights_wrt_phi) > 1e-2


def test_both_forms_of_the_rate_of_z_agree_without_proximal_term():
    rng = np.random.default_rng(1)
    s, _, z = (rng.normal(size=part.shape) for part in literal.initial_state(SUPPORT, WAY))
    task = random_task(lam=0.0, smoothing=0.0)
    A = literal.curvatures(literal.probabilities(task.W_0, task.phi))
    printed = literal.rate_of_z_as_printed(z, s, A, task.phi, 0.0)
    assert relative_error(printed, literal.rate_of_z(z, s, A, task.phi, 0.0)) < ROUND_OFF


# Proposition 4, and errata E2, E4


def central_difference_of_outer_loss(task: Task, steps: int, delta: float = 1e-4) -> float:
    """The slope of the outer loss in T, between two solves with Algorithm 5."""

    def loss(T: float) -> jax.Array:
        s = literal.solve_for_adaptation(task.W_0, task.phi, task.y, task.lam, T, steps)
        W = literal.weights(s, task.W_0, task.phi)
        return literal.cross_entropy(jnp.asarray(W), jnp.asarray(task.phi_query), jnp.asarray(task.y_query))

    return float(loss(HORIZON + delta) - loss(HORIZON - delta)) / (2 * delta)


def test_meta_gradient_of_horizon_is_minus_the_alignment_of_both_gradients(task, W_T, V, derivatives):
    actual = literal.meta_gradient_of_T(V, literal.gradient(W_T, task.W_0, task.phi, task.y, task.lam))
    assert relative_error(actual, derivatives.loss_wrt_T) < TRUNCATION
    assert relative_error(actual, central_difference_of_outer_loss(task, STEPS)) < TRUNCATION


def test_meta_gradient_of_horizon_differs_from_a_discrete_one_by_less_than_the_cube_of_the_step(task):
    """The difference is the truncation error of the method (of fourth order), not an error of the formula."""

    def error(steps: int) -> float:
        s = literal.solve_for_adaptation(task.W_0, task.phi, task.y, task.lam, HORIZON, steps)
        W = literal.weights(s, task.W_0, task.phi)
        V = literal.cross_entropy_gradient(W, task.phi_query, task.y_query)
        actual = literal.meta_gradient_of_T(V, literal.gradient(W, task.W_0, task.phi, task.y, task.lam))
        return relative_error(actual, central_difference_of_outer_loss(task, steps))

    assert error(4 * 5) < error(5) / 4**3


def test_meta_gradient_of_horizon_without_its_sign_is_ascent(task, W_T, V, derivatives):
    """Erratum E2: Algorithm 1 as printed."""
    gradient_train = literal.gradient(W_T, task.W_0, task.phi, task.y, task.lam)
    printed = literal.meta_gradient_of_T_as_printed(V, gradient_train)
    assert relative_error(printed, -derivatives.loss_wrt_T) < TRUNCATION


@with_proximal_term
def test_meta_gradient_of_horizon_without_the_proximal_force_is_wrong(task, W_T, V, derivatives):
    """Erratum E4: Code Snippet 2 takes the gradient of the plain cross-entropy."""
    printed = literal.meta_gradient_of_T(V, literal.cross_entropy_gradient(W_T, task.phi, task.y))
    assert relative_error(printed, derivatives.loss_wrt_T) > 0.1


# Proposition 5, and erratum E5


def test_projection_onto_initial_weights_is_the_vector_jacobian_product(task, state, V):
    explicit = literal.vector_jacobian_product(V, literal.jacobian_wrt_W_0(state.B, task.phi))
    assert relative_error(literal.project_onto_W_0(V, state.B, task.phi).reshape(-1), explicit) < ROUND_OFF


def test_projection_onto_initial_weights_is_their_meta_gradient(task, state, V, derivatives):
    assert relative_error(literal.project_onto_W_0(V, state.B, task.phi), derivatives.loss_wrt_W_0) < ROUND_OFF


@with_proximal_term
def test_outer_loss_with_proximal_term_has_a_direct_derivative(task, state, W_T, V):
    """Erratum E5: if (14) were the outer loss as well, Proposition 5 would lack a term."""
    arguments = (task.W_0, task.phi, task.phi_query, HORIZON, task.y, task.y_query, task.lam)
    expected = jax.jit(jax.grad(outer_loss_with_proximal_term))(*arguments)
    force = task.lam * (W_T - task.W_0)
    projection = literal.project_onto_W_0(V + force, state.B, task.phi)
    assert relative_error(projection, expected) > 0.1
    assert relative_error(projection - force, expected) < ROUND_OFF


# Proposition 6, and erratum E3


def test_projection_onto_embeddings_is_the_vector_jacobian_product(task, state, V):
    for m in range(SUPPORT):
        explicit = literal.vector_jacobian_product(V, literal.jacobian_wrt_phi(m, state, task.W_0, task.phi))
        assert relative_error(literal.project_onto_phi(m, V, state, task.W_0, task.phi), explicit) < ROUND_OFF


def test_projection_onto_embeddings_is_their_whole_meta_gradient(task, state, V, derivatives):
    assert relative_error(projections_onto_phi(V, state, task), derivatives.loss_wrt_phi) < ROUND_OFF


def test_direct_derivative_of_the_outer_loss_belongs_to_the_query_embeddings(task, state, W_T, V, derivatives):
    """Erratum E3: Algorithm 1 adds it to the meta-gradient of the support embeddings, where it is zero."""
    direct = literal.query_embedding_gradient(W_T, task.phi_query, task.y_query)
    assert relative_error(direct, derivatives.loss_wrt_phi_query) < ROUND_OFF
    printed = projections_onto_phi(V, state, task) + direct[:SUPPORT]
    assert relative_error(printed, derivatives.loss_wrt_phi) > 0.1


# Section 3.3


def test_euler_steps_give_the_meta_gradients_of_anil(task):
    steps, learning_rate = 5, 0.1
    state = literal.solve(task.W_0, task.phi, task.y, task.lam, steps * learning_rate, steps, literal.euler_step)
    W = literal.weights(state.s, task.W_0, task.phi)
    V = literal.cross_entropy_gradient(W, task.phi_query, task.y_query)

    def loss_after_gradient_descent(W_0, phi):
        W = W_0
        for _ in range(steps):
            W = W - learning_rate * jax.grad(literal.regularised_loss)(W, W_0, phi, task.y, task.lam)
        return literal.cross_entropy(W, task.phi_query, task.y_query)

    wrt_W_0, wrt_phi = jax.grad(loss_after_gradient_descent, argnums=(0, 1))(task.W_0, task.phi)
    assert relative_error(literal.project_onto_W_0(V, state.B, task.phi), wrt_W_0) < ROUND_OFF
    assert relative_error(projections_onto_phi(V, state, task), wrt_phi) < ROUND_OFF


# Invariants of the state


def test_state_stays_orthogonal_to_a_shift_of_all_logits(state):
    s, B, z = state
    for shifted in (s.sum(-1), B.sum(-2), B.sum(-1), z.sum(-1)):
        np.testing.assert_allclose(shifted, 0.0, atol=1e-14)


def test_z_is_symmetric_in_its_two_trailing_samples(state):
    np.testing.assert_allclose(state.z, state.z.swapaxes(1, 2), rtol=0, atol=1e-15)


def test_B_is_not_symmetric(state):
    r"""$B[i,j] \ne B[j,i]^\top$: the Hessians along a path do not commute."""
    assert relative_error(state.B.transpose(1, 0, 3, 2), state.B) > 1e-4


def test_flow_contracts(task, state):
    r"""$\lVert dW/dW_0 \rVert_2 \le 1$, with equality in the directions orthogonal to all embeddings."""
    assert np.linalg.norm(literal.jacobian_wrt_W_0(state.B, task.phi), 2) == pytest.approx(1.0, abs=ROUND_OFF)


def test_zero_horizon_changes_nothing(task):
    state = literal.solve(task.W_0, task.phi, task.y, task.lam, 0.0, 1)
    W = literal.weights(state.s, task.W_0, task.phi)
    V = literal.cross_entropy_gradient(W, task.phi_query, task.y_query)
    np.testing.assert_array_equal(W, task.W_0)
    np.testing.assert_array_equal(literal.project_onto_W_0(V, state.B, task.phi), V)
    np.testing.assert_array_equal(projections_onto_phi(V, state, task), np.zeros_like(task.phi))


def test_permuting_the_support_examples_permutes_the_state(task, state):
    order = np.array([2, 0, 3, 1])
    s, B, z = literal.solve(task.W_0, task.phi[order], task.y[order], task.lam, HORIZON, STEPS)
    assert relative_error(s, state.s[order]) < ROUND_OFF
    assert relative_error(B, state.B[np.ix_(order, order)]) < ROUND_OFF
    assert relative_error(z, state.z[np.ix_(order, order, order)]) < ROUND_OFF


def test_state_scales_with_the_units_of_the_embeddings(task, state):
    r"""With $K' = K / c^2$, $t' = c^2 t$, $\lambda' = \lambda / c^2$: $s' = c^2 s$, $B' = c^2 B$, $z' = c^4 z$."""
    c = 2.5
    s, B, z = literal.solve(c * task.W_0, task.phi / c, task.y, task.lam / c**2, c**2 * HORIZON, STEPS)
    assert relative_error(s, c**2 * state.s) < ROUND_OFF
    assert relative_error(B, c**2 * state.B) < ROUND_OFF
    assert relative_error(z, c**4 * state.z) < ROUND_OFF


def test_dropping_C_gives_the_first_order_meta_gradient(task, state, V):
    r"""Without $C^\top\phi$, Proposition 5 is the gradient for an adaptation $W(T) - W_0$ held constant."""
    displacement = jnp.asarray(literal.weights(state.s, task.W_0, task.phi) - task.W_0)
    first_order = jax.grad(lambda W_0: literal.cross_entropy(W_0 + displacement, task.phi_query, task.y_query))(
        task.W_0
    )
    assert relative_error(literal.project_onto_W_0(V, np.zeros_like(state.B), task.phi), first_order) < ROUND_OFF
