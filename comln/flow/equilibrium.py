r"""Where a flow comes to rest: the minimiser of the regularised support loss, and its derivative.

At rest $f(u_*; \theta) = 0$, so by the implicit function theorem
$\bar\theta = (\partial f / \partial\theta)^\top (-f'(u_*))^{-\top} \bar u$ (Rajeswaran et al., 2019).
The minimiser is found by Newton's method with steps of $\log(1 + \delta)/\delta$, where $\delta$ is the largest change
of a logit by the full step: for losses as flat as the logistic one such a step always goes down, from anywhere
(Sun and Tran-Dinh, 2019), and it becomes the full step near the solution.

Without a proximal term ($\lambda = 0$) a limit exists only if the examples cannot be fitted perfectly. It is found with
a tiny $\lambda$ in its place (as is that of a still smaller one), whose effect is taken off to first order; whether
there is one shows in what a change of that $\lambda$ does to the logits: next to nothing, or about one logit for each
factor of $e$.
"""

__all__ = ["NO_LIMIT", "Rest", "come_to_rest"]

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.flow.add_lanes import add_lanes_by_vmap
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.highest_precision import at_highest_precision
from comln.flow.lane_steps import FINISHED, OUT_OF_STEPS
from comln.typing import Array, Bool, Float, Int

NO_LIMIT = 5
"""How a lane ends whose flow goes on for ever; the other codes are those of `comln.flow.lane_steps`."""

MOST_STEPS = 200

NEGLIGIBLE_LOGITS = 0.02
"""How far the tiny proximal term may move a logit. That much is corrected for to first order; more is an error."""


class Rest(NamedTuple):
    """Where a flow comes to rest, how the search for it ended, and its Newton steps."""

    state: Float[Array, "..."]
    status: Int[Array, ""]
    steps: Int[Array, ""]


def _tiny_proximal(dtype: Any) -> float:
    return 0.1 * float(jnp.finfo(dtype).eps) ** 0.5


class _Search(NamedTuple):
    state: Array
    change: Array
    steps: Array
    searching: Array


def _find(flow: HeadFlow, wanted: Array, state: Array, parameters: HeadParameters, constants: Any) -> Rest:
    """Search in one lane; where it is not `wanted`, return `state` after no step."""
    dtype = state.dtype
    zero = jnp.zeros((), dtype)
    smallest_change = 100 * jnp.finfo(dtype).eps

    def advance(search: _Search) -> _Search:
        step = flow.resolvent(search.state, zero, parameters, constants)(flow.rate(search.state, parameters, constants))
        change = jnp.max(jnp.abs(parameters.factor @ step))
        change = jnp.where(jnp.isfinite(change), change, jnp.inf)
        shorten = jnp.where(change > 0, jnp.log1p(change) / change, 1.0)
        step = jnp.where(change < jnp.inf, shorten * step, jnp.nan)
        # Rounding ends the search as well: a small change that does not fall any more is as good as it gets.
        stalled = (change < 1e-2) & (change > 0.5 * search.change)
        steps = search.steps + 1
        searching = (change > smallest_change) & ~stalled & (change < jnp.inf) & (steps < MOST_STEPS)
        return _Search(search.state + step, change, steps, searching)

    start = _Search(state, jnp.asarray(jnp.inf, dtype), jnp.zeros((), jnp.int32), wanted)
    search = jax.lax.while_loop(lambda search: search.searching, advance, start)
    found = (search.change < 1e-3) | ~wanted
    return Rest(search.state, jnp.where(found, FINISHED, OUT_OF_STEPS), search.steps)


def come_to_rest(
    flow: HeadFlow,
    wanted: Bool[Array, ""],
    state: Float[Array, "..."],
    parameters: HeadParameters,
    constants: Any,
) -> Rest:
    """Return the state at rest of the flow from `state`, or `state` itself where it is not `wanted`.

    Differentiable in reverse mode in `parameters`; `jax.vmap` makes one loop of a batch, which is left out altogether
    if no lane wants it. The gradient is that of the limit. `state` must be the start of the flow, zero.
    """

    def regularised(parameters: HeadParameters) -> tuple[HeadParameters, Array]:
        tiny = _tiny_proximal(parameters.proximal.dtype)
        unregularised = parameters.proximal <= 0
        return parameters._replace(proximal=jnp.maximum(parameters.proximal, tiny)), unregularised

    def search(wanted: Array, state: Array, parameters: HeadParameters, constants: Any) -> Rest:
        proximal = parameters.proximal
        parameters, unregularised = regularised(parameters)
        rest = _find(flow, wanted, state, parameters, constants)
        # The first-order effect of the tiny proximal term, to be taken off, and the test of whether there is a limit.
        solve = flow.resolvent(rest.state, jnp.zeros_like(parameters.proximal), parameters, constants)
        effect = solve((parameters.proximal - proximal) * rest.state)
        negligible = jnp.max(jnp.abs(parameters.factor @ effect)) < NEGLIGIBLE_LOGITS
        corrected = jnp.where(wanted, rest.state + effect, rest.state)
        limitless = wanted & unregularised & ~negligible
        return rest._replace(state=corrected, status=jnp.where(limitless, NO_LIMIT, rest.status))

    def pull_back(wanted: Array, state: Array, state_bar: Array, parameters: HeadParameters, constants: Any) -> Any:
        shifted, _ = regularised(parameters)
        _, solve_transposed = flow.resolvents(state, jnp.zeros_like(shifted.proximal), shifted, constants)
        state_bar = jnp.where(wanted, state_bar, jnp.zeros_like(state_bar))
        if flow.loss.shift_invariant:
            # The state's ways always sum to zero. Where they do not, only the tiny proximal term would hold the solve.
            state_bar = state_bar - jnp.mean(state_bar, axis=1, keepdims=True)
        rate_bar = solve_transposed(state_bar)
        # Here too the first-order effect of the tiny proximal term is taken off.
        rate_bar = rate_bar + solve_transposed((shifted.proximal - parameters.proximal) * rate_bar)
        return jax.vjp(lambda parameters: flow.rate(state, parameters, constants), shifted)[1](rate_bar)[0]

    def search_lanes(wanted: Array, state: Array, parameters: HeadParameters, constants: Any) -> Rest:
        return jax.lax.cond(
            jnp.any(wanted),
            jax.vmap(search),
            lambda wanted, state, parameters, constants: Rest(
                state, jnp.full(wanted.shape, FINISHED), jnp.zeros(wanted.shape, jnp.int32)
            ),
            wanted,
            state,
            parameters,
            constants,
        )

    def pull_back_lanes(wanted: Array, state: Array, state_bar: Array, parameters: Any, constants: Any) -> Any:
        return jax.lax.cond(
            jnp.any(wanted),
            jax.vmap(pull_back),
            lambda wanted, state, state_bar, parameters, constants: jax.tree.map(jnp.zeros_like, parameters),
            wanted,
            state,
            state_bar,
            parameters,
            constants,
        )

    search_lanes, pull_back_lanes = add_lanes_by_vmap(search_lanes), add_lanes_by_vmap(pull_back_lanes)

    @jax.custom_vjp
    def run(wanted: Array, state: Array, parameters: HeadParameters, constants: Any) -> Rest:
        return search_lanes(wanted, state, parameters, constants)

    @at_highest_precision
    def run_forward(wanted: Array, state: Array, parameters: HeadParameters, constants: Any) -> Any:
        rest = run(wanted, state, parameters, constants)
        return rest, (wanted, rest.state, parameters, constants)

    @at_highest_precision
    def run_backward(residuals: Any, cotangents: Rest) -> Any:
        wanted, state, parameters, constants = residuals
        parameters_bar = pull_back_lanes(wanted, state, cotangents.state, parameters, constants)
        # Where it is not wanted the state goes through as it is; where it is, the limit does not depend on it.
        unwanted = (~wanted).reshape(wanted.shape + (1,) * (state.ndim - 1))
        state_bar = jnp.where(unwanted, cotangents.state, jnp.zeros_like(state))
        nothing = np.zeros(wanted.shape, jax.dtypes.float0)
        return nothing, state_bar, parameters_bar, jax.tree.map(jnp.zeros_like, constants)

    run.defvjp(run_forward, run_backward)
    lane = jax.tree.map(lambda x: x[None], (wanted, state, parameters, constants))
    return jax.tree.map(lambda x: x[0], run(*lane))
