r"""Reverse mode in span coordinates: the default meta-gradient.

The adapted weights $W(T) = W_0 - s(T)^\top\Phi$ depend on the embeddings through the Gram matrix $G$ and the initial
logits $L_0 = \Phi W_0^\top$ alone, and $s$ has only $M \times N$ entries. So reverse mode through the solve of
$\dot s = w \odot \ell'(L_0 - Gs) - \lambda s$ is exact, keeps a bounded number of $M \times N$ states, and yields the
cotangents of $G$, $L_0$, $T$ and $\lambda$; ordinary reverse mode takes these to $\Phi$ and $W_0$. The paper carries
sensitivities forward instead ($M^2N^2 + M^3N$ numbers): same gradient, many times the work.
"""

__all__ = ["SpanAdjoint"]

from typing import Any

import jax.numpy as jnp

from comln.flow.embedded_pair import FINISHED, OUT_OF_STEPS, follow
from comln.flow.integrator import Dopri5, Euler, FlowInfo, FlowResult, Integrator, Tsit5
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem
from comln.flow.span_coordinates import coefficient_rate, logit_unit, weights_from_coefficients
from comln.flow.tableaus import DORMAND_PRINCE, EULER, TSITOURAS
from comln.typing import Array, Float


class SpanAdjoint(AbstractMetaGradient):
    r"""Exact; memory $O(MN)$ times a bounded number of kept states, whatever the horizon.

    Differentiable in $W_0$, the embeddings, $T$ and $\lambda$.
    """

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        gram = problem.embeddings @ problem.embeddings.T
        unit = logit_unit(gram, problem.share)
        initial_logits = problem.embeddings @ problem.initial_weights.T
        proximal = problem.proximal / unit
        match integrator.method:
            case Tsit5():
                tableau, first_step = TSITOURAS, 1 / (1 + proximal)
            case Dopri5():
                tableau, first_step = DORMAND_PRINCE, 1 / (1 + proximal)
            case Euler(step):
                tableau, first_step = EULER, step * unit

        def rate(coefficients: Array, parameters: Any, constants: Any) -> Array:
            return coefficient_rate(coefficients, *_join(parameters, constants), problem.loss)

        coefficients, status, steps = follow(
            tableau,
            rate,
            integrator.rtol,
            integrator.atol,
            integrator.max_steps,
            state=jnp.zeros_like(initial_logits),
            end=unit * problem.horizon,
            first_step=first_step,
            parameters=(gram / unit, initial_logits, proximal),
            constants=(problem.labels, problem.share),
        )
        result = FlowResult.where(
            status == FINISHED,
            FlowResult.successful,
            FlowResult.where(status == OUT_OF_STEPS, FlowResult.max_steps_reached, FlowResult.step_underflow),
        )
        weights = weights_from_coefficients(problem.initial_weights, coefficients / unit, problem.embeddings)
        return weights, FlowInfo(result, steps)


def _join(parameters: Any, constants: Any) -> Any:
    gram, initial_logits, proximal = parameters
    labels, share = constants
    return gram, initial_logits, labels, share, proximal
