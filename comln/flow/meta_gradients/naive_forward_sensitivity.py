r"""The full Jacobians of the weights, carried forward with the flow (equation 5), without using their structure.

With $H = \sum_m A_m \otimes \phi_m\phi_m^\top + \lambda I$ the Hessian of the regularised support loss along the flow,

$$ \frac{\mathrm{d}}{\mathrm{d}t} \frac{\partial W}{\partial W_0} = -H \frac{\partial W}{\partial W_0} + \lambda I,
   \qquad
   \frac{\mathrm{d}}{\mathrm{d}t} \frac{\partial W}{\partial \phi_m} = -H \frac{\partial W}{\partial \phi_m}
   - A_m W \otimes \phi_m - w_m \ell'_m \otimes I . $$

They are $N^2d^2 + NMd^2$ numbers: what Propositions 2 and 3 avoid.
"""

__all__ = ["NaiveForwardSensitivity"]

from typing import Any

import jax
import jax.numpy as jnp

from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrate import integrate
from comln.flow.integrator import FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import (
    AbstractMetaGradient,
    FlowProblem,
    squared_norm,
    weights_rate,
    with_horizon_gradient,
)
from comln.flow.not_differentiated import not_differentiated
from comln.flow.span_coordinates import flow_curvature
from comln.typing import Array, Float


def jacobian_rates(
    problem: FlowProblem, weights: Array, to_initial: Array, to_embeddings: Array
) -> tuple[Array, Array]:
    r"""Return the rates of $\partial W/\partial W_0$ and $\partial W/\partial\Phi$, as above.

    - `to_initial`: of shape `(way, feature, way, feature)`. `to_embeddings`: `(way, feature, support, feature)`.
    """
    embeddings, (way, feature) = problem.embeddings, weights.shape
    logits = embeddings @ weights.T
    curvature = flow_curvature(logits, problem.labels, problem.share, problem.loss)
    residuals = problem.share[:, None] * problem.loss.gradient(logits, problem.labels)

    def decay(jacobian: Array) -> Array:
        seen = jnp.einsum("mf,nfkg->mnkg", embeddings, jacobian)
        curved = jnp.einsum("mnl,mlkg->mnkg", curvature, seen)
        return jnp.einsum("mf,mnkg->nfkg", embeddings, curved) + problem.proximal * jacobian

    identity = jnp.eye(way * feature, dtype=weights.dtype).reshape(way, feature, way, feature)
    direct = jnp.einsum("mnl,lg,mf->nfmg", curvature, weights, embeddings)
    direct = direct + jnp.einsum("mn,fg->nfmg", residuals, jnp.eye(feature, dtype=weights.dtype))
    return problem.proximal * identity - decay(to_initial), -decay(to_embeddings) - direct


class NaiveForwardSensitivity(AbstractMetaGradient):
    r"""Exact; memory $N^2d^2 + NMd^2$, whatever the horizon: for small problems and comparison.

    Differentiable in $W_0$, the embeddings and $T$. Any explicit integrator, finite horizons.
    """

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        proximal = not_differentiated(
            problem.proximal,
            "`proximal` is not differentiated by NaiveForwardSensitivity. Use `meta_gradient=SpanAdjoint()`.",
        )
        fixed = jax.lax.stop_gradient(problem)

        def follow(problem: FlowProblem, unit: Array, carry_jacobians: bool) -> Any:
            scale = jnp.sqrt(unit)
            way, feature = problem.initial_weights.shape

            def rate(state: tuple[Array, ...]) -> tuple[Array, ...]:
                weights = problem.initial_weights + state[0] / scale
                moved_rate = weights_rate(problem, weights) / scale
                if not carry_jacobians:
                    return (moved_rate,)
                # The Jacobian in the embeddings times c^2 is of the size of the other.
                rates = jacobian_rates(problem, weights, state[1], state[2] / unit)
                return moved_rate, rates[0] / unit, rates[1]

            state = (jnp.zeros_like(problem.initial_weights),)
            if carry_jacobians:
                identity = jnp.eye(way * feature, dtype=state[0].dtype).reshape(way, feature, way, feature)
                state = (*state, identity, jnp.zeros((way, feature, *problem.embeddings.shape), state[0].dtype))
            state, result, steps = integrate(rate, state, unit * problem.horizon, unit, integrator)
            return (problem.initial_weights + state[0] / scale, FlowInfo(result, steps)), state[1:]

        @jax.custom_vjp
        def flow(initial_weights: Array, embeddings: Array, problem: FlowProblem, unit: Array) -> Any:
            return follow(problem, unit, carry_jacobians=False)[0]

        @at_highest_precision
        def forward(initial_weights: Array, embeddings: Array, problem: FlowProblem, unit: Array) -> Any:
            results, jacobians = follow(problem, unit, carry_jacobians=True)
            # A solve that failed may have overflowed; its cotangent is zero, and 0 x inf must stay zero.
            successful = results[1].result == FlowResult.successful
            jacobians = [jnp.where(successful, jacobian, jnp.zeros_like(jacobian)) for jacobian in jacobians]
            return results, (jacobians, problem, unit)

        @at_highest_precision
        def backward(residuals: Any, cotangents: Any) -> Any:
            (to_initial, to_embeddings), problem, unit = residuals
            pulled = [jnp.einsum("nf,nfkg->kg", cotangents[0], jacobian) for jacobian in (to_initial, to_embeddings)]
            return pulled[0], pulled[1] / unit, jax.tree.map(jnp.zeros_like, problem), jnp.zeros_like(unit)

        flow.defvjp(forward, backward)
        del proximal
        weights, info = flow(problem.initial_weights, problem.embeddings, fixed, squared_norm(problem))
        return with_horizon_gradient(weights, fixed, problem.horizon), info
