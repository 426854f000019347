r"""Reverse mode in span coordinates: the default meta-gradient.

The adapted weights $W(T) = W_0 - s(T)^\top\Phi$ depend on the embeddings through the Gram matrix $G = \Phi\Phi^\top$
and the initial logits $L_0 = \Phi W_0^\top$ alone, and $s$ has only $M \times N$ entries. So reverse mode through the
solve of $\dot s = w \odot \ell'(L_0 - Gs) - \lambda s$ is exact and keeps a bounded number of $M \times N$ states. With
the outer gradient $V = \partial L / \partial W(T)$ it starts from $\bar s = -\Phi V^\top$, yields $\bar G$, $\bar L_0$,
$\bar T$ and $\bar\lambda$, and

$$ \bar W_0 = V + \bar L_0^\top \Phi, \qquad
   \bar\Phi = (\bar G + \bar G^\top)\Phi + \bar L_0 W_0 - s V. $$

The paper carries sensitivities forward instead ($M^2N^2 + M^3N$ numbers): the same gradient, many times the work.
"""

__all__ = ["SpanAdjoint"]

from typing import Any

import jax
import jax.numpy as jnp

from comln.flow.embedded_pair import FINISHED, OUT_OF_STEPS, follow
from comln.flow.integrator import Dopri5, Euler, FlowInfo, FlowResult, Integrator, Tsit5
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem
from comln.flow.span_coordinates import coefficient_rate, logit_unit, weights_from_coefficients
from comln.flow.tableaus import DORMAND_PRINCE, EULER, TSITOURAS
from comln.losses import AbstractLoss
from comln.typing import Array, Float, Int, Scalar


class SpanAdjoint(AbstractMetaGradient):
    r"""Exact; memory $O(MN)$ times a bounded number of kept states, whatever the horizon.

    Differentiable in $W_0$, the embeddings, $T$ and $\lambda$.
    """

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        @jax.custom_vjp
        def adapt(initial_weights: Array, embeddings: Array, horizon: Scalar, proximal: Scalar, constants: Any) -> Any:
            return forward(initial_weights, embeddings, horizon, proximal, constants)[0]

        def forward(
            initial_weights: Array, embeddings: Array, horizon: Scalar, proximal: Scalar, constants: Any
        ) -> Any:
            def coefficients_at_horizon(gram: Array, initial_logits: Array, horizon: Scalar, proximal: Scalar) -> Any:
                labels, share = constants
                coefficients, status, steps = solve_in_span(
                    gram, initial_logits, horizon, proximal, labels, share, problem.loss, integrator
                )
                return coefficients, (status, steps)

            gram, initial_logits = embeddings @ embeddings.T, embeddings @ initial_weights.T
            coefficients, pull_back, ended = jax.vjp(
                coefficients_at_horizon, gram, initial_logits, horizon, proximal, has_aux=True
            )
            weights = weights_from_coefficients(initial_weights, coefficients, embeddings)
            return (weights, ended), (initial_weights, embeddings, coefficients, pull_back)

        def backward(residuals: Any, cotangents: Any) -> Any:
            initial_weights, embeddings, coefficients, pull_back = residuals
            weights_bar = cotangents[0]
            gram_bar, logits_bar, horizon_bar, proximal_bar = pull_back(-embeddings @ weights_bar.T)
            # One product for all three terms: each by itself would be another array of the embeddings' size.
            factors = jnp.concatenate([gram_bar + gram_bar.T, logits_bar, -coefficients], axis=1)
            embeddings_bar = factors @ jnp.concatenate([embeddings, initial_weights, weights_bar])
            return weights_bar + logits_bar.T @ embeddings, embeddings_bar, horizon_bar, proximal_bar, None

        adapt.defvjp(forward, backward)
        constants = (problem.labels, problem.share)
        weights, (status, steps) = adapt(
            problem.initial_weights, problem.embeddings, problem.horizon, problem.proximal, constants
        )
        result = FlowResult.where(
            status == FINISHED,
            FlowResult.successful,
            FlowResult.where(status == OUT_OF_STEPS, FlowResult.max_steps_reached, FlowResult.step_underflow),
        )
        return weights, FlowInfo(result, steps)


def solve_in_span(
    gram: Float[Array, "support support"],
    initial_logits: Float[Array, "support way"],
    horizon: Scalar,
    proximal: Scalar,
    labels: Float[Array, "support way"],
    share: Float[Array, " support"],
    loss: AbstractLoss,
    integrator: Integrator,
) -> tuple[Float[Array, "support way"], Int[Array, ""], Int[Array, ""]]:
    """Return the coefficients at the horizon, the status of the solve and its steps.

    Integrates in units of logits; differentiable in `gram`, `initial_logits`, `horizon` and `proximal`.
    """
    unit = logit_unit(gram, share)
    match integrator.method:
        case Tsit5():
            tableau, first_step = TSITOURAS, 1 / (1 + proximal / unit)
        case Dopri5():
            tableau, first_step = DORMAND_PRINCE, 1 / (1 + proximal / unit)
        case Euler(step):
            tableau, first_step = EULER, step * unit

    def rate(coefficients: Array, parameters: Any, constants: Any) -> Array:
        gram, initial_logits, proximal = parameters
        labels, share = constants
        return coefficient_rate(coefficients, gram, initial_logits, labels, share, proximal, loss)

    coefficients, status, steps = follow(
        tableau,
        rate,
        integrator.rtol,
        integrator.atol,
        integrator.max_steps,
        state=jnp.zeros_like(initial_logits),
        end=unit * horizon,
        first_step=jax.lax.stop_gradient(first_step),
        parameters=(gram / unit, initial_logits, proximal / unit),
        constants=(labels, share),
    )
    return coefficients / unit, status, steps
