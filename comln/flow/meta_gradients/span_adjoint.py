r"""Reverse mode in the coordinates of the head's flow: the default meta-gradient.

With fewer examples than features, the adapted weights $W(T) = W_0 - s(T)^\top\Phi$ depend on the embeddings through
the Gram matrix $G = \Phi\Phi^\top$ and the initial logits $L_0 = \Phi W_0^\top$ alone, and $s$ is only $M \times N$.
So reverse mode through the solve of $\dot s = w \odot \ell'(L_0 - Gs) - \lambda s$ is exact and keeps a bounded number
of such states. With the outer gradient $V = \partial L / \partial W(T)$ it starts from $\bar s = -\Phi V^\top$,
yields $\bar G$, $\bar L_0$, $\bar T$ and $\bar\lambda$, and

$$ \bar W_0 = V + \bar L_0^\top \Phi, \qquad
   \bar\Phi = (\bar G + \bar G^\top)\Phi + \bar L_0 W_0 - s V. $$

With more examples than features the rows of $W$ are the smaller state, and the same sweep runs in them. The paper
carries sensitivities forward instead ($M^2N^2 + M^3N$ numbers): the same gradient, many times the work.
"""

__all__ = ["SpanAdjoint"]

from typing import Any

import jax
import jax.numpy as jnp

from comln.flow.equilibrium import NO_LIMIT
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.head_solve import solve_head_flow
from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrator import FlowInfo, FlowResult, Integrator
from comln.flow.lane_steps import FINISHED, OUT_OF_STEPS
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem, squared_norm
from comln.flow.one_task_at_a_time import one_task_at_a_time
from comln.flow.span_coordinates import logit_unit, weights_from_coefficients
from comln.typing import Array, Float, Int, Scalar


class SpanAdjoint(AbstractMetaGradient):
    r"""Exact; memory $O(MN)$ (or $O(Nd)$ if smaller) times a bounded number of kept states, whatever the horizon.

    Differentiable in $W_0$, the embeddings, $T$ and $\lambda$. Follows the flow by any integrator and for any horizon,
    infinite ones where there is a limit.
    """

    @property
    def reaches_infinity(self) -> bool:
        return True

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        support, feature = problem.embeddings.shape
        solve = solve_in_span if support < feature else solve_in_rows
        weights, status, steps = solve(problem, integrator)
        return weights, FlowInfo(result_of(status), steps)


def result_of(status: Int[Array, ""]) -> FlowResult:
    """Return the result that a solver's status means."""
    result = FlowResult.step_underflow
    for code, meaning in (
        (NO_LIMIT, FlowResult.no_limit),
        (OUT_OF_STEPS, FlowResult.max_steps_reached),
        (FINISHED, FlowResult.successful),
    ):
        result = FlowResult.where(status == code, meaning, result)
    return result


def solve_in_rows(
    problem: FlowProblem, integrator: Integrator
) -> tuple[Float[Array, "way feature"], Int[Array, ""], Int[Array, ""]]:
    """Return the adapted weights, the status of the solve and its steps; the state is the rows of the weights."""
    unit = squared_norm(problem)
    parameters = HeadParameters(
        problem.embeddings / jnp.sqrt(unit), problem.embeddings @ problem.initial_weights.T, problem.proximal / unit
    )
    state, status, steps = solve_head_flow(
        HeadFlow(problem.loss, in_span=False),
        integrator,
        parameters,
        (problem.labels, problem.share),
        unit,
        problem.horizon,
        problem.may_rest,
    )
    return problem.initial_weights + state.T / jnp.sqrt(unit), status, steps


def solve_in_span(
    problem: FlowProblem, integrator: Integrator
) -> tuple[Float[Array, "way feature"], Int[Array, ""], Int[Array, ""]]:
    """Return the adapted weights, the status of the solve and its steps; the state is in the span of the embeddings."""

    def coefficients_at_horizon(
        gram: Array, initial_logits: Array, horizon: Scalar, proximal: Scalar, constants: Any
    ) -> Any:
        unit = logit_unit(gram, constants[1])
        state, status, steps = solve_head_flow(
            HeadFlow(problem.loss, in_span=True),
            integrator,
            HeadParameters(gram / unit, initial_logits, proximal / unit),
            constants,
            unit,
            horizon,
            problem.may_rest,
        )
        return -state / unit, (status, steps)

    @jax.custom_vjp
    def adapt(initial_weights: Array, embeddings: Array, horizon: Scalar, proximal: Scalar, constants: Any) -> Any:
        return forward(initial_weights, embeddings, horizon, proximal, constants)[0]

    @at_highest_precision
    def forward(initial_weights: Array, embeddings: Array, horizon: Scalar, proximal: Scalar, constants: Any) -> Any:
        gram, initial_logits = _products(embeddings, initial_weights)
        coefficients, pull_back, ended = jax.vjp(
            lambda gram, logits, horizon, proximal: coefficients_at_horizon(gram, logits, horizon, proximal, constants),
            gram,
            initial_logits,
            horizon,
            proximal,
            has_aux=True,
        )
        weights = _weights(initial_weights, coefficients, embeddings)
        return (weights, *ended), (initial_weights, embeddings, coefficients, pull_back)

    @at_highest_precision
    def backward(residuals: Any, cotangents: Any) -> Any:
        initial_weights, embeddings, coefficients, pull_back = residuals
        weights_bar = cotangents[0]
        coefficients_bar = _coefficients_cotangent(weights_bar, embeddings)
        gram_bar, logits_bar, horizon_bar, proximal_bar = pull_back(coefficients_bar)
        initial_bar, embeddings_bar = _cotangents(
            weights_bar, gram_bar, logits_bar, coefficients, embeddings, initial_weights
        )
        return initial_bar, embeddings_bar, horizon_bar, proximal_bar, None

    adapt.defvjp(forward, backward)
    return adapt(
        problem.initial_weights,
        problem.embeddings,
        problem.horizon,
        problem.proximal,
        (problem.labels, problem.share),
    )


@one_task_at_a_time
def _products(embeddings: Array, initial_weights: Array) -> tuple[Array, Array]:
    r"""Return $G$ and $L_0$."""
    return embeddings @ embeddings.T, embeddings @ initial_weights.T


_weights = one_task_at_a_time(weights_from_coefficients)


@one_task_at_a_time
def _coefficients_cotangent(weights_bar: Array, embeddings: Array) -> Array:
    r"""Return $\bar s = -\Phi V^\top$."""
    return -embeddings @ weights_bar.T


@one_task_at_a_time
def _cotangents(
    weights_bar: Array,
    gram_bar: Array,
    logits_bar: Array,
    coefficients: Array,
    embeddings: Array,
    initial_weights: Array,
) -> tuple[Array, Array]:
    r"""Return $\bar W_0$ and $\bar\Phi$, the latter as one product: three would make three arrays of its size."""
    factors = jnp.concatenate([gram_bar + gram_bar.T, logits_bar, -coefficients], axis=1)
    embeddings_bar = factors @ jnp.concatenate([embeddings, initial_weights, weights_bar])
    return weights_bar + logits_bar.T @ embeddings, embeddings_bar
