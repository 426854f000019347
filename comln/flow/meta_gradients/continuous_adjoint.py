r"""The adjoint equation solved backwards together with the flow itself, as in Neural ODEs (Chen et al., 2018).

From $t = T$ back to zero, with $a(T) = V$ and $g = -\nabla L$ the rate of the flow,

$$ \dot W = g, \qquad \dot a = -\Bigl(\frac{\partial g}{\partial W}\Bigr)^{\!\top} a, \qquad
   \dot{\bar\theta} = -\Bigl(\frac{\partial g}{\partial\theta}\Bigr)^{\!\top} a $$

(equation 4). Nothing is kept of the way forward. But a gradient flow contracts, so that solved backwards it expands:
the weights leave the path that led to $W(T)$ exponentially fast, and the gradient with them (the paper's Figure 2).
"""

__all__ = ["ContinuousAdjoint"]

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
from comln.typing import Array, Float


class ContinuousAdjoint(AbstractMetaGradient):
    r"""Not exact: right for short horizons, useless for long ones where the flow has a rest to leave. Memory is flat.

    Measured in float64 at default tolerances, three ways, smoothed labels, $c^2 T$ about 180: the gradient of $W_0$ is
    off by 11 percent and that of the embeddings by 81 percent, where `Backpropagation` is off by 0.001 percent.
    Nothing tells that it is.

    Differentiable in $W_0$, the embeddings and $T$ (whose gradient is exact). Any explicit integrator, finite horizons.
    Where the way back cannot be solved (steps run out, or it overflows) the gradients of $W_0$ and the embeddings are
    NaN. It is here for comparison.
    """

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        proximal = not_differentiated(
            problem.proximal,
            "`proximal` is not differentiated by ContinuousAdjoint. Use `meta_gradient=SpanAdjoint()`.",
        )
        fixed = jax.lax.stop_gradient(problem)
        unit = squared_norm(problem)

        @jax.custom_vjp
        def flow(initial_weights: Array, embeddings: Array, problem: FlowProblem, unit: Array) -> Any:
            return forward(initial_weights, embeddings, problem, unit)[0]

        @at_highest_precision
        def forward(initial_weights: Array, embeddings: Array, problem: FlowProblem, unit: Array) -> Any:
            scale = jnp.sqrt(unit)

            def rate(moved: Array) -> Array:
                return weights_rate(problem, problem.initial_weights + moved / scale) / scale

            end = unit * problem.horizon
            moved, result, steps = integrate(rate, jnp.zeros_like(initial_weights), end, unit, integrator)
            return (initial_weights + moved / scale, FlowInfo(result, steps)), (problem, unit, moved)

        @at_highest_precision
        def backward(residuals: Any, cotangents: Any) -> Any:
            problem, unit, moved = residuals
            scale = jnp.sqrt(unit)
            # The adjoint is linear: in units of its largest entry a tolerance on it means something.
            size = jnp.max(jnp.abs(cotangents[0]))
            size = jnp.where(size > 0, size, jnp.ones_like(size))

            def rate_back(state: tuple[Array, ...]) -> tuple[Array, ...]:
                moved, adjoint, _, _ = state

                def scaled_rate(moved: Array, initial_weights: Array, embeddings: Array) -> Array:
                    # In units of logits: the weights and their adjoint times c, the embeddings over c.
                    changed = FlowProblem(
                        initial_weights / scale,
                        embeddings * scale,
                        problem.labels,
                        problem.share,
                        problem.horizon,
                        problem.proximal,
                        problem.loss,
                        problem.may_rest,
                    )
                    return weights_rate(changed, (initial_weights + moved) / scale) / scale

                where = (moved, problem.initial_weights * scale, problem.embeddings / scale)
                rate, pull_back = jax.vjp(scaled_rate, *where)
                moved_bar, weights_bar, embeddings_bar = pull_back(adjoint)
                return -rate, moved_bar, weights_bar, embeddings_bar

            nothing = (jnp.zeros_like(problem.initial_weights), jnp.zeros_like(problem.embeddings))
            state = (moved, cotangents[0] / size, *nothing)
            # A task with nothing to pull back, as one whose solve failed, has no way back to go.
            asked = jnp.any(cotangents[0] != 0)
            end = jnp.where(asked, unit * problem.horizon, 0.0)
            (_, _, weights_bar, embeddings_bar), result, _ = integrate(rate_back, state, end, unit, integrator)
            size = jnp.where(result == FlowResult.successful, size, jnp.nan)
            weights_bar = cotangents[0] + jnp.where(asked, size * weights_bar, 0.0)
            embeddings_bar = jnp.where(asked, size * embeddings_bar / unit, 0.0)
            return weights_bar, embeddings_bar, jax.tree.map(jnp.zeros_like, problem), jnp.zeros_like(unit)

        flow.defvjp(forward, backward)
        del proximal
        weights, info = flow(problem.initial_weights, problem.embeddings, fixed, unit)
        return with_horizon_gradient(weights, fixed, problem.horizon), info
