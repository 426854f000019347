r"""How well the classifiers along the path of one flow for each fold predict the examples held out of it.

The flows of all folds are followed side by side, once, and looked at when they pass the horizons of a grid. A path that
is kept (`comln.gradient_flow_path`) can be asked anything afterwards; this one keeps nothing, and ends as soon as
nothing better is to come.
"""

__all__ = ["PATIENCE", "PathScores", "scores_along_path"]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.estimators.padded_flow import Settings, settling_time
from comln.estimators.padded_problem import PaddedProblem, in_precision_of
from comln.estimators.stacked_flow import Stack, Standardisation
from comln.flow.chebyshev import follow_visiting
from comln.flow.highest_precision import at_highest_precision
from comln.typing import Array, Bool

PATIENCE = 2
"""A path ends after so many horizons in a row that score less than the best one."""


class PathScores(NamedTuple):
    """Scores of the held-out examples, the larger the better, at the horizons that were reached; `(horizon, fold)`.

    - `fell`: whether the path ended because they fell.
    """

    accuracy: np.ndarray
    log_likelihood: np.ndarray
    fell: bool


class _Scores(NamedTuple):
    accuracy: Array
    log_likelihood: Array
    best: Array
    falls: Array


def scores_along_path(
    problem: PaddedProblem,
    training: np.ndarray,
    held_out: np.ndarray,
    horizons: np.ndarray,
    proximal: float,
    standardisation: Standardisation,
    by_accuracy: bool,
    settings: Settings,
) -> PathScores:
    r"""Return the scores of the held-out examples at each horizon, until they fall or the flow cannot be followed.

    **Arguments:**
    - `problem`: all examples, in coordinates common to all folds; its weights are not used.
    - `training`, `held_out`: weights of the examples in each fold, shape `(fold, example)`, at least zero.
    - `horizons`: $0 \le T_1 < T_2 < \dots$, finite.
    - `standardisation`: what each fold does to its examples.
    - `by_accuracy`: whether it is the accuracy whose fall ends the path, rather than the likelihood.
    """
    dtype = np.dtype(np.float32)
    with in_precision_of(dtype):
        accuracy, likelihood, visited, fell = _program(settings, standardisation, by_accuracy)(
            PaddedProblem(*(array.astype(dtype, copy=False) for array in problem)),
            training.astype(dtype),
            held_out.astype(dtype),
            horizons.astype(dtype),
            np.asarray(proximal, dtype),
        )
        count = int(visited)
        return PathScores(np.asarray(accuracy)[:count], np.asarray(likelihood)[:count], bool(fell))


@functools.cache
def _program(settings: Settings, standardisation: Standardisation, by_accuracy: bool) -> Callable[..., Any]:
    @jax.jit
    @at_highest_precision
    def walk(
        problem: PaddedProblem, training: Array, held_out: Array, horizons: Array, proximal: Array
    ) -> tuple[Array, Array, Array, Array]:
        stack = Stack.of(problem.traced(), training, proximal, standardisation)
        share = held_out / jnp.sum(held_out, axis=1, keepdims=True)
        classes = jnp.argmax(stack.labels, axis=0)

        def look(scores: _Scores, stop: Array, state: Array) -> tuple[_Scores, Bool[Array, ""]]:
            logits = stack.logits(state)
            accuracy = jnp.sum(jnp.where(jnp.argmax(logits, axis=0) == classes, share, 0.0), axis=1)
            highest = jnp.max(logits, axis=0)
            normaliser = highest + jnp.log(jnp.sum(jnp.exp(logits - highest[None]), axis=0))
            likelihood = jnp.sum(share * (jnp.sum(stack.labels * logits, axis=0) - normaliser), axis=1)
            mean = jnp.mean(accuracy if by_accuracy else likelihood)
            # A mean of equal scores may differ by rounding.
            worse = mean < scores.best - 10 * jnp.finfo(mean.dtype).eps * jnp.abs(scores.best)
            falls = jnp.where(worse, scores.falls + 1, 0)
            scores = _Scores(
                scores.accuracy.at[stop].set(accuracy),
                scores.log_likelihood.at[stop].set(likelihood),
                jnp.maximum(scores.best, mean),
                falls,
            )
            return scores, falls < PATIENCE

        lowest = jnp.asarray(jnp.finfo(share.dtype).min, share.dtype)
        empty = jnp.zeros((len(horizons), len(training)), share.dtype)
        ending = follow_visiting(
            stack.rate,
            stack.multiply_hessian,
            stack.zero(),
            stack.direction(),
            jnp.minimum(horizons, settling_time(proximal)),
            look,
            _Scores(empty, empty, lowest, jnp.zeros((), jnp.int32)),
            settings.tol,
            settings.max_iter,
        )
        scores = ending.carry
        return scores.accuracy, scores.log_likelihood, ending.visited, scores.falls >= PATIENCE

    return walk
