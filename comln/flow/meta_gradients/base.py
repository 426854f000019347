"""What a way to differentiate the flow is given, and what it returns."""

__all__ = ["AbstractMetaGradient", "FlowProblem", "squared_norm", "weights_rate", "with_horizon_gradient"]

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.flow.integrator import FlowInfo, Integrator
from comln.flow.span_coordinates import logit_unit
from comln.losses import AbstractLoss
from comln.typing import Array, Float, Scalar


class FlowProblem(eqx.Module):
    r"""One gradient flow: follow $\dot W = -\nabla L(W)$ from $W(0) = W_0$ to $W(T)$.

    $$ L(W) = \sum_m w_m \ell(W\phi_m, y_m) + \tfrac{\lambda}{2} \lVert W - W_0 \rVert^2 $$

    - `initial_weights`: $W_0$, shape `(way, feature)`.
    - `embeddings`: rows $\phi_m$, shape `(support, feature)`.
    - `labels`: rows $y_m$, shape `(support, way)`.
    - `share`: $w_m \ge 0$, summing to one, shape `(support,)`.
    - `horizon`: $T \ge 0$; infinite only for a meta-gradient that `reaches_infinity`.
    - `proximal`: $\lambda \ge 0$.
    - `loss`: $\ell$.
    - `may_rest`: whether the flow may be at rest before its horizon, as far as is known when it is compiled.
    """

    initial_weights: Float[Array, "way feature"]
    embeddings: Float[Array, "support feature"]
    labels: Float[Array, "support way"]
    share: Float[Array, " support"]
    horizon: Scalar
    proximal: Scalar
    loss: AbstractLoss
    may_rest: bool = eqx.field(static=True)


class AbstractMetaGradient(eqx.Module):
    r"""A way to solve the flow and to differentiate $W(T)$ in $W_0$, the embeddings and $T$."""

    @property
    def reaches_infinity(self) -> bool:
        """Whether the horizon may be infinite."""
        return False

    @abc.abstractmethod
    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        """Return the adapted weights and how the solve went. Where it failed the weights mean nothing."""


def squared_norm(problem: FlowProblem) -> Scalar:
    r"""Return $c^2$, the mean squared norm of the support embeddings (`logit_unit`), without forming a Gram matrix."""
    return logit_unit(jnp.diag(jnp.sum(jnp.square(problem.embeddings), axis=1)), problem.share)


def weights_rate(problem: FlowProblem, weights: Float[Array, "way feature"]) -> Float[Array, "way feature"]:
    r"""Return $\dot W = -\nabla L(W)$ (equation 8), the downward gradient of the regularised support loss."""
    residuals = problem.share[:, None] * problem.loss.gradient(problem.embeddings @ weights.T, problem.labels)
    return -residuals.T @ problem.embeddings - problem.proximal * (weights - problem.initial_weights)


def with_horizon_gradient(
    weights: Float[Array, "way feature"], problem: FlowProblem, horizon: Scalar
) -> Float[Array, "way feature"]:
    r"""Return `weights` $= W(T)$ as they are, with $\partial W(T)/\partial T = \dot W(T)$ (Proposition 4, equation 13).

    That is the continuous derivative, for whichever solver made the weights. An infinite horizon has none.
    """
    fixed = jax.lax.stop_gradient((weights, problem))
    rate = weights_rate(fixed[1], fixed[0])
    # A solve that failed has weights that mean nothing; its cotangent is zero, and 0 x NaN must stay zero.
    rate = jnp.where(jnp.isfinite(rate), rate, jnp.zeros_like(rate))
    ahead = jnp.where(jnp.isinf(horizon), jnp.zeros_like(horizon), horizon - jax.lax.stop_gradient(horizon))
    return weights + ahead * rate
