"""Random adaptation problems, and what the tests of the flow compare."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln import CrossEntropy, Integrator, gradient_flow


class Problem(NamedTuple):
    """A support and a query set of embeddings, and where the flow starts."""

    initial_weights: jax.Array
    embeddings: jax.Array
    labels: jax.Array
    query: jax.Array
    query_labels: jax.Array


def random_problem(
    seed: int = 0,
    ways: int = 3,
    support: int = 6,
    size: int = 8,
    queries: int = 7,
    norm: float = 1.0,
    smoothing: float = 0.0,
) -> Problem:
    """Return a problem of clustered embeddings whose mean squared norm is about `norm`."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(ways, size))

    def points(count: int) -> np.ndarray:
        return (centres[np.arange(count) % ways] + 0.7 * rng.normal(size=(count, size))) * np.sqrt(norm / (1.5 * size))

    def labels(count: int) -> np.ndarray:
        hard = np.eye(ways)[np.arange(count) % ways]
        return (1 - smoothing) * hard + smoothing / (ways - 1) * (1 - hard)

    weights = 0.3 * rng.normal(size=(ways, size)) / np.sqrt(norm)
    return Problem(*map(jnp.asarray, (weights, points(support), labels(support), points(queries), labels(queries))))


def query_loss(problem: Problem, horizon, meta_gradient, integrator=Integrator(), proximal=0.0, mask=None):
    """Return the query loss after adaptation, as a function to differentiate."""
    weights, info = gradient_flow(
        problem.initial_weights,
        problem.embeddings,
        problem.labels,
        horizon,
        proximal=proximal,
        mask=mask,
        meta_gradient=meta_gradient,
        integrator=integrator,
    )
    return jnp.mean(CrossEntropy().value(problem.query @ weights.T, problem.query_labels)), info


@functools.cache
def compiled(meta_gradient, integrator, may_rest):
    """Return the query loss and its gradients as one compiled function of (problem, horizon, proximal, mask).

    Unless the flow `may_rest`, the proximal weight is zero, and known to be when it is compiled.
    """

    def loss(initial_weights, embeddings, query, horizon, problem, proximal, mask):
        changed = problem._replace(initial_weights=initial_weights, embeddings=embeddings, query=query)
        return query_loss(changed, horizon, meta_gradient, integrator, proximal if may_rest else 0.0, mask)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))


def solve(problem: Problem, horizon, meta_gradient, integrator=Integrator(), proximal: Any = 0.0, mask=None):
    """Return the query loss, the solve's info, and the gradients by name."""
    dtype = problem.query.dtype
    mask = jnp.ones(len(problem.labels), dtype) if mask is None else mask
    may_rest = bool(np.isinf(horizon)) or not (isinstance(proximal, float) and proximal == 0.0)
    (value, info), gradients = compiled(meta_gradient, integrator, may_rest)(
        problem.initial_weights,
        problem.embeddings,
        problem.query,
        jnp.asarray(horizon, dtype),
        problem,
        jnp.asarray(proximal, dtype),
        mask,
    )
    names = ("initial_weights", "embeddings", "query", "horizon")
    by_name: dict[str, jax.Array] = {name: gradient for name, gradient in zip(names, gradients, strict=True)}
    return value, info, by_name


def meta_gradients(
    problem: Problem, horizon, meta_gradient, integrator=Integrator(), proximal: Any = 0.0, mask=None
) -> dict[str, jax.Array]:
    """Return the gradients in the initial weights, support embeddings, query embeddings and horizon, by name."""
    return solve(problem, horizon, meta_gradient, integrator, proximal, mask)[2]


def relative_error(actual, expected) -> float:
    """Return the norm of the difference over the norm of what is expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
