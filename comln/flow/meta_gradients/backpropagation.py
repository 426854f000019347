r"""Reverse mode through the steps of the solver of the weights themselves: back-propagation through time.

$$ W_{k+1} = \Psi_{h_k}(W_k; \theta), \qquad
   \bar W_k = \Bigl(\frac{\partial \Psi}{\partial W}\Bigr)^{\!\top} \bar W_{k+1}, \qquad
   \bar\theta \mathrel{+}= \Bigl(\frac{\partial \Psi}{\partial \theta}\Bigr)^{\!\top} \bar W_{k+1} $$

With explicit Euler steps that is ANIL (Raghu et al., 2020), whose memory grows with the number of steps.
"""

__all__ = ["Backpropagation"]

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrate import integrate_and_backpropagate
from comln.flow.integrator import FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import (
    AbstractMetaGradient,
    FlowProblem,
    squared_norm,
    weights_rate,
    with_horizon_gradient,
)
from comln.typing import Array, Float


class Backpropagation(AbstractMetaGradient):
    r"""Exact; memory $Nd$ times the kept states, of which there is room for all of `Integrator(max_steps=...)`.

    Differentiable in $W_0$, the embeddings, $T$ and $\lambda$. Any explicit integrator, finite horizons. Set
    `max_steps` to what is needed: the memory is for that many.

    - `checkpoint`: `None` keeps every state; `"sqrt"` keeps $\sqrt{\texttt{max\_steps}}$ and takes the others again
      (Chen et al., 2016).
    """

    checkpoint: Literal["sqrt"] | None = None

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        def follow(problem: FlowProblem) -> tuple[Array, FlowInfo]:
            unit = squared_norm(problem)
            scale = jnp.sqrt(unit)
            steps = integrator.max_steps

            def rate(moved: Array, problem: FlowProblem) -> Array:
                return weights_rate(problem, problem.initial_weights + moved / scale) / scale

            moved, result, attempts = integrate_and_backpropagate(
                rate,
                jnp.zeros_like(problem.initial_weights),
                problem,
                unit * jax.lax.stop_gradient(problem.horizon),
                unit,
                integrator,
                checkpoints=steps if self.checkpoint is None else math.ceil(math.sqrt(steps)),
            )
            return problem.initial_weights + moved / scale, FlowInfo(result, attempts)

        @jax.custom_vjp
        def flow(problem: FlowProblem) -> Any:
            return follow(problem)

        @at_highest_precision
        def forward(problem: FlowProblem) -> Any:
            weights, pull_back, info = jax.vjp(follow, problem, has_aux=True)
            return (weights, info), (pull_back, info.result == FlowResult.successful)

        @at_highest_precision
        def backward(residuals: Any, cotangents: Any) -> Any:
            pull_back, successful = residuals
            (pulled,) = pull_back(cotangents[0])
            # Steps that failed may have overflowed; their cotangent is zero, and 0 x inf must stay zero.
            return (jax.tree.map(lambda x: jnp.where(successful, x, jnp.zeros_like(x)), pulled),)

        flow.defvjp(forward, backward)
        weights, info = flow(problem)
        return with_horizon_gradient(weights, problem, problem.horizon), info
