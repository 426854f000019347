r"""What is lost where the state of a gradient flow is recomputed backward in time: the numbers of Figure 2.

The adjoint method of Neural ODEs (Chen et al., 2018) keeps only $W(T)$ and integrates the flow backward in time to have
$W(t)$ again. Backward, a gradient flow climbs: whatever error $W(T)$ has grows like $e^{\mu(T - t)}$ in a direction of
curvature $\mu$. On a quadratic loss everything is known in closed form,

$$ W(t) = W^* + e^{-At}(W_0 - W^*), \qquad \frac{\partial L}{\partial W_0} = e^{-AT} V, \qquad
   \frac{\partial L}{\partial A} = -\int_0^T e^{-A(T - t)} V \, (W(t) - W^*)^\top \mathrm{d}t, $$

with $V = \partial L/\partial W(T)$, so that every error is measured against the truth. The gradient in $W_0$ does not
depend on $W(t)$ there, since the curvature is the same everywhere; the gradient in $A$ does. Then the same is measured
on the support loss of a small classification task, with labels that are one-hot (no minimum: the curvature fades as
the loss falls) and smoothed (a minimum, as in the quadratic).
"""

__all__ = [
    "CURVATURES",
    "HORIZON",
    "HORIZONS",
    "LABELS",
    "PRECISIONS",
    "SHOTS",
    "WAYS",
    "Figure2",
    "GradientErrors",
    "QuadraticRun",
    "SupportRun",
    "adjoint_by_reintegration",
    "compute",
    "exact_gradients",
    "exact_path",
    "quadratic",
    "quadratic_run",
    "support_run",
]

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from comln.flow.adaptive import follow_keeping_knots
from comln.flow.gradient_flow import gradient_flow
from comln.flow.integrate import integrate
from comln.flow.integrator import Integrator
from comln.flow.lane_steps import System
from comln.flow.meta_gradients import ForwardSensitivity, SpanAdjoint
from comln.flow.meta_gradients.base import AbstractMetaGradient
from comln.flow.step_rules import TSITOURAS
from comln.losses import CrossEntropy
from comln.reproduce.measure import environment
from comln.typing import Array, Scalar

CURVATURES = (1.0, 0.1)
"""The eigenvalues of A, the curvatures of the quadratic loss."""

HORIZON = 16.0
"""T on the quadratic loss: so long that the error shows, so short that W(T) is not yet at the minimum."""

ANGLE = math.pi / 3
MINIMUM = (1.0, 0.5)
START_IN_EIGENBASIS = (2.0, -3.0)
QUERY_MINIMUM = (0.0, 1.0)
POINTS = 121

PRECISIONS = (("float32", Integrator()), ("float64", Integrator(rtol=1e-10, atol=1e-10)))
"""The product's default, and far tighter."""

WAYS, SHOTS = 3, 5
"""Of the classification task."""

HORIZONS = (1.0, 5.0, 20.0, 50.0)
"""T on the support loss."""

LABELS = (("one-hot", 0.0), ("smoothed", 0.1))
"""Names of the labels of the support set, and how much they are smoothed."""

QUERIES, FEATURES = 10, 16
REFERENCE = Integrator(rtol=1e-11, atol=1e-11, max_steps=100_000)


@dataclass(frozen=True)
class GradientErrors:
    """Errors of two gradients, relative to the norm of the true one.

    - `reintegrated`: of the continuous adjoint, which recomputes the state backward in time.
    - `kept`: of the reverse mode that keeps states on the way forward and takes the steps between them again.
    """

    reintegrated: float
    kept: float


@dataclass(frozen=True)
class QuadraticRun:
    """There and back on the quadratic loss, in one precision; distances are to the exact solution at the same time.

    - `dtype`, `tolerance`: in which precision, and the relative and absolute tolerance of a step.
    - `times`: shape `(time,)`, from 0 to T. `forward`, `backward`: weights there, shape `(time, 2)`.
    - `forward_distance`, `backward_distance`: shape `(time,)`.
    - `kept_times`, `kept`, `kept_distance`: the states that the reverse mode keeps, and T.
    - `initial_weights`, `curvature`: errors of the gradients in W(0) and A.
    """

    dtype: str
    tolerance: float
    times: np.ndarray
    forward: np.ndarray
    forward_distance: np.ndarray
    backward: np.ndarray
    backward_distance: np.ndarray
    kept_times: np.ndarray
    kept: np.ndarray
    kept_distance: np.ndarray
    initial_weights: GradientErrors
    curvature: GradientErrors

    @property
    def growth_rate(self) -> float:
        """How fast the distance grows backward in time, over the half of the way that is farther from T."""
        middle = len(self.times) // 2
        factor = self.backward_distance[0] / self.backward_distance[middle]
        return float(np.log(factor) / (self.times[middle] - self.times[0]))


@dataclass(frozen=True)
class SupportRun:
    """There and back on a support loss, in the product's default precision.

    - `labels`, `horizon`: which loss, and T.
    - `moved`: the distance from W(0) to W(T).
    - `forward_error`: of W(T). `backward_error`: of W(0), recomputed from W(T).
    - `initial_weights`, `embeddings`: errors of the meta-gradients.
    """

    labels: str
    horizon: float
    moved: float
    forward_error: float
    backward_error: float
    initial_weights: GradientErrors
    embeddings: GradientErrors


@dataclass(frozen=True)
class Figure2:
    """What the figure shows: the quadratic loss in each precision, and the support loss at each horizon."""

    quadratic: tuple[QuadraticRun, ...]
    support: tuple[SupportRun, ...]
    environment: dict[str, Any]


def compute() -> Figure2:
    """Return all that the figure shows; x64 may be on or off, every number says its precision."""
    on_quadratic = tuple(quadratic_run(dtype, integrator) for dtype, integrator in PRECISIONS)
    on_support = tuple(support_run(*labels, horizon) for labels in LABELS for horizon in HORIZONS)
    return Figure2(on_quadratic, on_support, environment())


def adjoint_by_reintegration(
    rate: Callable[[Array, Array], Array],
    parameters: Array,
    state: Array,
    state_bar: Array,
    horizon: Scalar,
    integrator: Integrator,
) -> tuple[Array, Array, Array]:
    r"""Return the state recomputed at time 0 and the gradients there in state and parameters (Chen et al., 2018).

    With $\dot z = f(z; \theta)$, integrates $(z, a, \bar\theta)$ backward in time from $(z(T), \bar z(T), 0)$:

    $$ \dot z = f(z; \theta), \qquad \dot a = -(\partial f/\partial z)^\top a, \qquad
       \dot{\bar\theta} = -(\partial f/\partial\theta)^\top a. $$
    """

    def backward(augmented: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        state, state_bar, _ = augmented
        moved, pull_back = jax.vjp(rate, state, parameters)
        return (-moved, *pull_back(state_bar))

    end = (state, state_bar, jnp.zeros_like(parameters))
    return integrate(backward, end, horizon, jnp.ones_like(horizon), integrator)[0]


# The quadratic loss


def quadratic() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return A, the minimum W*, the start W(0), and where the outer loss has its minimum."""
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    basis = np.array([[cosine, -sine], [sine, cosine]])
    minimum = np.array(MINIMUM)
    start = minimum + basis @ np.array(START_IN_EIGENBASIS)
    return basis @ np.diag(CURVATURES) @ basis.T, minimum, start, np.array(QUERY_MINIMUM)


def exact_path(curvature: np.ndarray, minimum: np.ndarray, start: np.ndarray, times: np.ndarray) -> np.ndarray:
    r"""Return $W^* + e^{-At}(W_0 - W^*)$ at each time, shape `(time, 2)`."""
    spectrum, basis = np.linalg.eigh(curvature)
    return minimum + (np.exp(-np.outer(times, spectrum)) * (basis.T @ (start - minimum))) @ basis.T


def exact_gradients(
    curvature: np.ndarray, minimum: np.ndarray, start: np.ndarray, query_minimum: np.ndarray, horizon: float
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the gradients of $\frac12\lVert W(T) - q\rVert^2$ in $W_0$ and $A$, in closed form."""
    spectrum, basis = np.linalg.eigh(curvature)
    end = exact_path(curvature, minimum, start, np.array([horizon]))[0]
    outer, offset = basis.T @ (end - query_minimum), basis.T @ (start - minimum)
    decay = np.exp(-spectrum * horizon)
    gap = spectrum[:, None] - spectrum[None, :]
    safe = np.where(gap == 0, 1.0, gap)
    overlap = np.where(gap == 0, horizon * decay[:, None], (decay[None, :] - decay[:, None]) / safe)
    return basis @ (decay * outer), -basis @ (np.outer(outer, offset) * overlap) @ basis.T


def _descent(weights: Array, curvature: Array, minimum: Array) -> Array:
    return -curvature @ (weights - minimum)


@functools.partial(jax.jit, static_argnames="integrator")
def _there_and_back(
    curvature: Array, minimum: Array, start: Array, query_minimum: Array, times: Array, integrator: Integrator
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Return the forward solution at each time, and what the continuous adjoint has there on its way back."""

    def forward(time: Scalar) -> Array:
        rate = functools.partial(_descent, curvature=curvature, minimum=minimum)
        return integrate(rate, start, time, jnp.ones_like(time), integrator)[0]

    solution = jax.vmap(forward)(times)
    end, horizon = solution[-1], times[-1]

    def backward(time: Scalar) -> tuple[Array, Array, Array]:
        rate = functools.partial(_descent, minimum=minimum)
        return adjoint_by_reintegration(rate, curvature, end, end - query_minimum, horizon - time, integrator)

    return solution, jax.vmap(backward)(times)


@functools.partial(jax.jit, static_argnames="integrator")
def _keeping_states(
    curvature: Array, minimum: Array, start: Array, query_minimum: Array, horizon: Scalar, integrator: Integrator
) -> tuple[Array, Array, tuple[Array, Array]]:
    """Return the kept states and their times, W(T) the last of them, and the gradients in W(0) and A."""
    system = System(
        rule=TSITOURAS,
        stiff_rule=None,
        rate=_descent,
        radius=lambda state, curvature, minimum: jnp.max(jnp.sum(jnp.abs(curvature), axis=1)),
        resolvent=lambda state, shift, curvature, minimum: functools.partial(
            jnp.linalg.solve, shift * jnp.eye(2, dtype=state.dtype) + curvature
        ),
        rtol=integrator.rtol,
        atol=integrator.atol,
    )

    def adapt(start: Array, curvature: Array) -> Any:
        most_steps = jnp.asarray(integrator.max_steps, jnp.int32)
        first_step = jnp.ones_like(horizon)
        followed, knots = follow_keeping_knots(system, start, horizon, first_step, most_steps, curvature, minimum)
        return followed.state, knots

    end, pull_back, knots = jax.vjp(adapt, start, curvature, has_aux=True)
    states = jnp.concatenate([knots.states, end[None]])
    return states, jnp.append(knots.times, horizon), pull_back(end - query_minimum)


@jax.default_matmul_precision("highest")
def quadratic_run(dtype: str, integrator: Integrator) -> QuadraticRun:
    """Return what happens there and back on the quadratic loss in one precision."""
    problem = [array.astype(dtype) for array in quadratic()]
    times = np.linspace(0.0, HORIZON, POINTS).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        on_device = [jnp.asarray(array) for array in problem]
        forward, (backward, *adjoint) = _there_and_back(*on_device, jnp.asarray(times), integrator)
        kept, kept_times, gradients = _keeping_states(*on_device, jnp.asarray(times[-1]), integrator)
    kept, kept_times = _float64(kept), _float64(kept_times)
    kept, kept_times = kept[np.isfinite(kept_times)], kept_times[np.isfinite(kept_times)]

    # Truth for the numbers as this precision holds them, so that rounding the problem does not count as an error.
    curvature, minimum, start, query_minimum = map(_float64, problem)
    path = functools.partial(exact_path, curvature, minimum, start)
    exact = exact_gradients(curvature, minimum, start, query_minimum, HORIZON)
    errors = [
        GradientErrors(relative_error(reintegrated[0], truth), relative_error(ours, truth))
        for reintegrated, ours, truth in zip(adjoint, gradients, exact, strict=True)
    ]
    times = _float64(times)
    return QuadraticRun(
        dtype=dtype,
        tolerance=integrator.rtol,
        times=times,
        forward=_float64(forward),
        forward_distance=_distances(forward, path(times)),
        backward=_float64(backward),
        backward_distance=_distances(backward, path(times)),
        kept_times=kept_times,
        kept=kept,
        kept_distance=_distances(kept, path(kept_times)),
        initial_weights=errors[0],
        curvature=errors[1],
    )


# The support loss


def _task(smoothing: float) -> list[np.ndarray]:
    """Return initial weights, support embeddings and labels, query embeddings and labels: separable clusters."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(WAYS, FEATURES))

    def points(count: int) -> np.ndarray:
        return np.repeat(centres, count, axis=0) + 0.5 * rng.normal(size=(WAYS * count, FEATURES))

    weights, support, query = 0.1 * rng.normal(size=(WAYS, FEATURES)), points(SHOTS), points(QUERIES)
    one_hot = np.eye(WAYS)
    smoothed = (1 - smoothing) * one_hot + smoothing / WAYS
    arrays = (weights, support, np.repeat(smoothed, SHOTS, axis=0), query, np.repeat(one_hot, QUERIES, axis=0))
    return [array.astype(np.float32) for array in arrays]


def _query_loss(weights: Array, query: Array, query_labels: Array) -> Scalar:
    return jnp.mean(CrossEntropy().value(query @ weights.T, query_labels))


@functools.partial(jax.jit, static_argnames=("meta_gradient", "integrator"))
def _adapt(
    weights: Array,
    support: Array,
    labels: Array,
    query: Array,
    query_labels: Array,
    horizon: Scalar,
    meta_gradient: AbstractMetaGradient,
    integrator: Integrator,
) -> tuple[Array, tuple[Array, Array]]:
    """Return W(T), and the gradients of the query loss in W(0) and the support embeddings."""

    def loss(weights: Array, support: Array) -> tuple[Scalar, Array]:
        adapted, _ = gradient_flow(
            weights, support, labels, horizon, meta_gradient=meta_gradient, integrator=integrator
        )
        return _query_loss(adapted, query, query_labels), adapted

    gradients, adapted = jax.grad(loss, argnums=(0, 1), has_aux=True)(weights, support)
    return adapted, gradients


@jax.jit
def _back_on_support_loss(
    adapted: Array, support: Array, labels: Array, query: Array, query_labels: Array, horizon: Scalar
) -> tuple[Array, Array, Array]:
    """Return what the continuous adjoint has at time 0: W(0) recomputed, and the gradients in it and the support."""

    def rate(weights: Array, support: Array) -> Array:
        return -CrossEntropy().gradient(support @ weights.T, labels).T @ support / len(support)

    adapted_bar = jax.grad(_query_loss)(adapted, query, query_labels)
    return adjoint_by_reintegration(rate, support, adapted, adapted_bar, horizon, Integrator())


@jax.default_matmul_precision("highest")
def support_run(labels: str, smoothing: float, horizon: float) -> SupportRun:
    """Return what happens there and back on the support loss of a task whose labels are smoothed by `smoothing`."""
    task = _task(smoothing)
    with jax.enable_x64(True):
        exact = [jnp.asarray(_float64(array)) for array in task]
        truth, true_gradients = _adapt(*exact, jnp.asarray(horizon), ForwardSensitivity(), REFERENCE)
    with jax.enable_x64(False):
        weights, *others = [jnp.asarray(array) for array in task]
        end = jnp.asarray(horizon)
        adapted, gradients = _adapt(weights, *others, end, SpanAdjoint(), Integrator())
        recomputed, *adjoint = _back_on_support_loss(adapted, *others, end)
    errors = [
        GradientErrors(relative_error(reintegrated, exact), relative_error(ours, exact))
        for reintegrated, ours, exact in zip(adjoint, gradients, true_gradients, strict=True)
    ]
    return SupportRun(
        labels=labels,
        horizon=horizon,
        moved=_distance(truth, weights),
        forward_error=_distance(adapted, truth),
        backward_error=_distance(recomputed, weights),
        initial_weights=errors[0],
        embeddings=errors[1],
    )


def _float64(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)


def _distances(states: Any, exact: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_float64(states) - exact, axis=1)


def _distance(actual: Any, expected: Any) -> float:
    return float(np.linalg.norm(_float64(actual) - _float64(expected)))


def relative_error(actual: Any, expected: Any) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    return _distance(actual, expected) / float(np.linalg.norm(_float64(expected)))
