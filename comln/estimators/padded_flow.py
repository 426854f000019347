"""The gradient flow of a head on padded arrays: problems of nearly one size share compiled code."""

__all__ = ["FlowFailed", "Settings", "follow_padded", "settling_time"]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.estimators.padded_problem import PaddedProblem, Traced, in_precision_of
from comln.estimators.stacked_flow import Stack, Standardisation
from comln.flow.chebyshev import follow_visiting
from comln.flow.gradient_flow import gradient_flow
from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrator import FlowResult
from comln.losses import AbstractLoss, SquaredError
from comln.typing import Array


class FlowFailed(RuntimeError):
    """A flow could not be followed to its horizon; the message says what to do."""


class Settings(NamedTuple):
    """What is compiled into the code.

    - `loss`: an instance without arrays.
    - `tol`: bounds on the relative and absolute error of a step, in units of logits.
    - `max_iter`: limit on attempted steps.
    - `proximal`: whether there is a proximal term. `infinite`: whether the horizon is infinite.
    """

    loss: AbstractLoss
    tol: float
    max_iter: int
    proximal: bool = False
    infinite: bool = False


def follow_padded(
    problem: PaddedProblem, horizon: float, proximal: float, settings: Settings
) -> tuple[np.ndarray, int]:
    r"""Return $W(T)$, padded as its `start`, and the number of steps.

    **Raises:** `FlowFailed` with the remedy if the flow could not be followed.
    """
    dtype = problem.examples.dtype
    with in_precision_of(dtype):
        weights, outcome = _program(settings)(problem, np.array([horizon, proximal], dtype))
        weights, (failure, steps) = np.asarray(weights), np.asarray(outcome).tolist()
    if failure:
        raise FlowFailed(_REMEDIES[failure].format(horizon=horizon, max_iter=settings.max_iter, tol=settings.tol))
    return weights, steps


_EXHAUSTED, _LIMITLESS, _UNUSABLE = 1, 2, 3
_REMEDIES = {
    _EXHAUSTED: (
        "The flow did not reach horizon={horizon:g} with max_iter={max_iter} and tol={tol:g}. Shorten `horizon`, raise "
        "`tol` or `max_iter`, pass `proximal` > 0, or scale the features (`standardize=True`)."
    ),
    _LIMITLESS: (
        "With horizon=inf and proximal=0 the weights grow for ever: the classes can be separated. Pass a finite "
        "`horizon` or `proximal` > 0."
    ),
    _UNUSABLE: (
        "The features, the targets or the start hold numbers whose squares overflow. Scale them, for example by "
        "`sklearn.preprocessing.StandardScaler`."
    ),
}


@functools.cache
def _program(settings: Settings) -> Callable[..., Any]:
    by_steps = not settings.infinite and not isinstance(settings.loss, SquaredError)

    @jax.jit
    @at_highest_precision
    def follow(problem: PaddedProblem, horizon_and_proximal: Array) -> tuple[Array, Array]:
        traced = problem.traced()
        weights, failure, steps = (_by_steps if by_steps else _at_once)(settings, traced, *horizon_and_proximal)
        finite = jnp.all(jnp.isfinite(jnp.stack([jnp.sum(jnp.square(x)) for x in traced])))
        return weights, jnp.stack([jnp.where(finite, failure, _UNUSABLE), steps])

    return follow


def _by_steps(settings: Settings, problem: Traced, horizon: Array, proximal: Array) -> tuple[Array, Array, Array]:
    as_it_is = Standardisation(centred=False, scaled=False, intercept=False)
    stack = Stack.of(problem, problem.weights[None], proximal, as_it_is)
    ending = follow_visiting(
        stack.rate,
        stack.multiply_hessian,
        stack.zero(),
        stack.direction(),
        jnp.minimum(horizon, settling_time(proximal))[None],
        lambda _, stop, state: (state, True),
        stack.zero(),
        settings.tol,
        settings.max_iter,
    )
    weights = problem.start + stack.head(ending.carry)[:, 0]
    reached = (ending.visited == 1) & jnp.all(jnp.isfinite(weights))
    return weights, jnp.where(reached, 0, _EXHAUSTED).astype(jnp.int32), ending.steps


def _at_once(settings: Settings, problem: Traced, horizon: Array, proximal: Array) -> tuple[Array, Array, Array]:
    weights, info = gradient_flow(
        problem.start,
        problem.examples,
        problem.labels,
        jnp.inf if settings.infinite else horizon,
        mask=problem.weights,
        loss=settings.loss,
        proximal=proximal if settings.proximal else 0.0,
    )
    failure = jnp.where(info.result == FlowResult.no_limit, _LIMITLESS, _EXHAUSTED)
    return weights, jnp.where(info.result == FlowResult.successful, 0, failure).astype(jnp.int32), info.steps


def settling_time(proximal: Array) -> Array:
    r"""Return when $e^{-\lambda t}$ falls below what the precision resolves; infinity without a proximal term."""
    e_folds = 4 - jnp.log(jnp.finfo(proximal.dtype).eps)
    return jnp.where(proximal > 0, e_folds / jnp.where(proximal > 0, proximal, 1.0), jnp.inf)
