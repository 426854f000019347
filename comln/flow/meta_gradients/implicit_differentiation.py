r"""The meta-gradient of the equilibrium, by the implicit function theorem (Rajeswaran et al., 2019).

At the minimiser of the regularised support loss, with $H$ the Hessian of its cross-entropy term there,

$$ \frac{\partial L}{\partial W_0} = \lambda q, \qquad
   \frac{\partial L}{\partial \Phi} = -\frac{\partial}{\partial \Phi} \langle q, \nabla L_\text{support}(W_*) \rangle,
   \qquad (H + \lambda I)\, q = V . $$

$H + \lambda I$ is not formed; its inverse is $\bigl(I - \Phi^\top Q \Phi / \lambda\bigr)/\lambda$ with $Q$ as in
`comln.flow.resolvent`.
"""

__all__ = ["ImplicitDifferentiation"]

import jax
import jax.numpy as jnp

from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrator import FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem, weights_rate, with_horizon_gradient
from comln.flow.meta_gradients.span_adjoint import SpanAdjoint
from comln.typing import Array, Float


class ImplicitDifferentiation(AbstractMetaGradient):
    r"""Exact where the flow has come to rest ($\lambda > 0$ and $\lambda T \gg 1$), biased before. No state is kept.

    Differentiable in $W_0$, the embeddings and $\lambda$; the gradient of $T$ is that of the flow, zero at rest. Any
    integrator, any horizon that `SpanAdjoint` takes. With $\lambda = 0$ the result is a failure.
    """

    @property
    def reaches_infinity(self) -> bool:
        return True

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        fixed = jax.lax.stop_gradient(problem)
        weights, info = SpanAdjoint().solve(fixed, integrator)
        weights = _rest(problem, jax.lax.stop_gradient(weights))
        result = FlowResult.where(fixed.proximal > 0, info.result, FlowResult.needs_proximal)
        return with_horizon_gradient(weights, fixed, problem.horizon), FlowInfo(result, info.steps)


@jax.custom_vjp
def _rest(problem: FlowProblem, weights: Float[Array, "way feature"]) -> Float[Array, "way feature"]:
    """Return `weights`, where the flow of `problem` rests, with their derivative in `problem`."""
    return weights


def _forward(problem: FlowProblem, weights: Array) -> tuple[Array, tuple[FlowProblem, Array]]:
    return weights, (problem, weights)


@at_highest_precision
def _backward(residuals: tuple[FlowProblem, Array], weights_bar: Array) -> tuple[FlowProblem, Array]:
    problem, weights = residuals
    rate_bar = _solve_hessian(problem, weights, weights_bar)
    (problem_bar,) = jax.vjp(lambda problem: weights_rate(problem, weights), problem)[1](rate_bar)
    # A solve that failed has weights that mean nothing, and a cotangent of zero.
    usable = jnp.any(weights_bar != 0)
    return jax.tree.map(lambda x: jnp.where(usable, x, jnp.zeros_like(x)), problem_bar), jnp.zeros_like(weights)


_rest.defvjp(_forward, _backward)


def _solve_hessian(
    problem: FlowProblem, weights: Float[Array, "way feature"], right: Float[Array, "way feature"]
) -> Float[Array, "way feature"]:
    r"""Return $(H + \lambda I)^{-1} V$ at `weights`."""
    flow = HeadFlow(problem.loss, in_span=False)
    start = jnp.zeros_like(weights.T)
    parameters = HeadParameters(problem.embeddings, problem.embeddings @ weights.T, problem.proximal)
    zero = jnp.zeros_like(problem.proximal)
    return flow.resolvent(start, zero, parameters, (problem.labels, problem.share))(right.T).T
