r"""The paper's own algorithm: sensitivities carried forward with the flow (Algorithms 2 to 4, errata corrected).

The state is $(s, B, z)$ of `comln.flow.span_coordinates`, $MN + M^2N^2 + M^3N$ numbers whatever the embedding size and
the horizon. At the end the outer gradient $V = \partial L / \partial W(T)$ is projected onto the meta-parameters.
"""

__all__ = ["ForwardSensitivity", "horizon_gradient", "project_embeddings", "project_initial_weights"]

from typing import Any

import jax
import jax.numpy as jnp

from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrate import integrate
from comln.flow.integrator import FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem
from comln.flow.not_differentiated import not_differentiated
from comln.flow.span_coordinates import (
    coefficient_rate,
    feature_sensitivity_rate,
    flow_curvature,
    flow_logits,
    logit_unit,
    propagator_rate,
    weights_from_coefficients,
)
from comln.typing import Array, Float, Scalar


def project_initial_weights(
    weights_bar: Float[Array, "way feature"],
    propagator: Float[Array, "support support way way"],
    embeddings: Float[Array, "support feature"],
) -> Float[Array, "way feature"]:
    r"""Return $\partial L / \partial W_0 = V - C^\top\Phi$ (Proposition 5, Algorithm 3).

    With $C_j = \sum_i B[i,j]^\top V\phi_i$.

    - `weights_bar`: $V$, the gradient of the outer loss in the adapted weights.
    """
    return weights_bar - _propagated(weights_bar, propagator, embeddings).T @ embeddings


def _propagated(
    weights_bar: Float[Array, "way feature"],
    propagator: Float[Array, "support support way way"],
    embeddings: Float[Array, "support feature"],
) -> Float[Array, "support way"]:
    return jnp.einsum("ik,ijkl->jl", embeddings @ weights_bar.T, propagator)


def project_embeddings(
    weights_bar: Float[Array, "way feature"],
    coefficients: Float[Array, "support way"],
    propagator: Float[Array, "support support way way"],
    feature_sensitivity: Float[Array, "support support support way"],
    initial_weights: Float[Array, "way feature"],
    embeddings: Float[Array, "support feature"],
) -> Float[Array, "support feature"]:
    r"""Return $\partial L / \partial\phi_m = -(V^\top s_m + W_0^\top C_m + \Phi^\top D_m)$ (Prop. 6, Algorithm 4).

    With $C$ as in `project_initial_weights` and $D_{mj} = \sum_i z[i,j,m]^\top V\phi_i$.
    """
    propagated = _propagated(weights_bar, propagator, embeddings)
    mixed = jnp.einsum("ik,ijmk->mj", embeddings @ weights_bar.T, feature_sensitivity)
    return -(coefficients @ weights_bar + propagated @ initial_weights + mixed @ embeddings)


def horizon_gradient(
    weights_bar: Float[Array, "way feature"],
    rate: Float[Array, "support way"],
    embeddings: Float[Array, "support feature"],
) -> Scalar:
    r"""Return $\partial L / \partial T = -\langle V, \nabla L_\text{support}(W(T)) \rangle$ (Prop. 4, eq. 13).

    - `rate`: $\dot s(T)$; the gradient of the regularised support loss is $\dot s^\top\Phi$.
    """
    return -jnp.sum(weights_bar * (rate.T @ embeddings))


class ForwardSensitivity(AbstractMetaGradient):
    r"""Exact; memory $M^2N^2 + M^3N$, whatever the horizon. Differentiable in $W_0$, the embeddings and $T$.

    $\lambda$ is not differentiated here; `SpanAdjoint` does that.
    """

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        proximal = not_differentiated(
            problem.proximal,
            "`proximal` is not differentiated by ForwardSensitivity. Use `meta_gradient=SpanAdjoint()`.",
        )
        gram = jax.lax.stop_gradient(problem.embeddings @ problem.embeddings.T)
        unit = logit_unit(gram, problem.share)

        @jax.custom_vjp
        def flow(initial_weights: Array, embeddings: Array, horizon: Scalar, constants: Any) -> Any:
            return forward(initial_weights, embeddings, horizon, constants, carry_sensitivities=False)[0]

        @at_highest_precision
        def forward(
            initial_weights: Array,
            embeddings: Array,
            horizon: Scalar,
            constants: Any,
            carry_sensitivities: bool = True,
        ) -> Any:
            labels, share, proximal, unit = constants
            gram = embeddings @ embeddings.T / unit
            initial_logits = embeddings @ initial_weights.T

            def coefficients_rate(coefficients: Array) -> Array:
                return coefficient_rate(
                    coefficients, gram, initial_logits, labels, share, proximal / unit, problem.loss
                )

            def joint_rate(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
                coefficients, propagator, sensitivity = state
                logits = flow_logits(coefficients, gram, initial_logits)
                curvature = flow_curvature(logits, labels, share, problem.loss)
                return (
                    coefficients_rate(coefficients),
                    propagator_rate(propagator, curvature, gram, proximal / unit),
                    feature_sensitivity_rate(sensitivity, coefficients, curvature, gram, proximal / unit),
                )

            start = jnp.zeros_like(initial_logits)
            support, way = start.shape
            if not carry_sensitivities:
                coefficients, result, steps = integrate(coefficients_rate, start, unit * horizon, unit, integrator)
                residuals = None
            else:
                propagator = jnp.zeros((support, support, way, way), start.dtype)
                sensitivity = jnp.zeros((support, support, support, way), start.dtype)
                (coefficients, propagator, sensitivity), result, steps = integrate(
                    joint_rate, (start, propagator, sensitivity), unit * horizon, unit, integrator
                )
                solved = (
                    coefficients / unit,
                    propagator / unit,
                    sensitivity / unit**2,
                    coefficients_rate(coefficients),
                )
                # A solve that failed may have overflowed; its cotangent is zero, and 0 x inf must stay zero.
                successful = result == FlowResult.successful
                solved = (jnp.where(successful, x, jnp.zeros_like(x)) for x in solved)
                residuals = (initial_weights, embeddings, *solved)
            weights = weights_from_coefficients(initial_weights, coefficients / unit, embeddings)
            return (weights, FlowInfo(result, steps)), residuals

        @at_highest_precision
        def backward(residuals: Any, cotangents: Any) -> Any:
            initial_weights, embeddings, coefficients, propagator, sensitivity, rate = residuals
            weights_bar = cotangents[0]
            return (
                project_initial_weights(weights_bar, propagator, embeddings),
                project_embeddings(weights_bar, coefficients, propagator, sensitivity, initial_weights, embeddings),
                horizon_gradient(weights_bar, rate, embeddings),
                None,
            )

        flow.defvjp(forward, backward)
        constants = (problem.labels, problem.share, proximal, unit)
        return flow(problem.initial_weights, problem.embeddings, problem.horizon, constants)
