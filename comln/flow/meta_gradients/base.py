"""What a way to differentiate the flow is given, and what it returns."""

__all__ = ["AbstractMetaGradient", "FlowProblem"]

import abc

import equinox as eqx

from comln.flow.integrator import FlowInfo, Integrator
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
