"""Accuracies over seeds and tasks: their mean, what it is worth, and differences that are paired."""

__all__ = ["Score", "alike_within", "difference", "gap", "in_percent", "is_within", "score", "sign_of"]

import math
from dataclasses import dataclass

import numpy as np

from comln.evaluate import mean_and_ci95


@dataclass(frozen=True)
class Score:
    """A mean over seeds and tasks.

    - `mean`: of all seeds and tasks.
    - `ci95`: half-width of its 95 % confidence interval over tasks: of the mean over seeds that each task has.
    - `of_seeds`: the mean of each seed.
    - `tasks`: how many.
    """

    mean: float
    ci95: float
    of_seeds: tuple[float, ...]
    tasks: int

    @property
    def low(self) -> float:
        """The lowest that the interval over tasks and the seeds leave possible."""
        return min(self.mean - self.ci95, *self.of_seeds)

    @property
    def high(self) -> float:
        """The highest that they leave possible."""
        return max(self.mean + self.ci95, *self.of_seeds)


def score(values: np.ndarray) -> Score:
    """Return the score of values of shape `(seed, task)`.

    >>> found = score(np.array([[0.5, 0.7], [0.9, 0.7]]))
    >>> round(found.mean, 3), round(found.ci95, 3), [round(mean, 3) for mean in found.of_seeds], found.tasks
    (0.7, 0.0, [0.6, 0.8], 2)
    """
    mean, ci95 = mean_and_ci95(np.mean(values, axis=0))
    return Score(mean, ci95, tuple(float(x) for x in np.mean(values, axis=1)), values.shape[1])


def difference(values: np.ndarray | None, others: np.ndarray | None) -> Score | None:
    """Return the score of `values` minus `others`, paired by seed and task, over the tasks that both have.

    It is `None` where one of the two is.
    """
    if values is None or others is None:
        return None
    tasks = min(values.shape[1], others.shape[1])
    return score(values[:, :tasks] - others[:, :tasks])


def gap(value: Score, other: Score) -> Score:
    """Return `value` minus `other`, by seeds, where what the tasks have in common is not known.

    The interval is that of independent means, so too wide rather than too narrow where both are of the same tasks.

    >>> gap(Score(0.9, 0.03, (0.88, 0.92), 100), Score(0.8, 0.04, (0.81, 0.79), 100)).ci95
    0.05
    """
    seeds = tuple(a - b for a, b in zip(value.of_seeds, other.of_seeds, strict=True))
    tasks = min(value.tasks, other.tasks)
    return Score(value.mean - other.mean, math.hypot(value.ci95, other.ci95), seeds, tasks)


def sign_of(value: Score, margin: float = 0.0) -> int | None:
    """Return 1 where a difference is above `margin`, -1 where it is below it, and `None` where both are possible.

    It counts as decided if the interval over tasks and every single seed are on one side.

    >>> sign_of(Score(0.02, 0.01, (0.015, 0.025), 100)), sign_of(Score(0.02, 0.01, (-0.01, 0.05), 100))
    (1, None)
    """
    if value.low > margin:
        return 1
    return -1 if value.high < margin else None


def is_within(value: Score, margin: float) -> bool | None:
    """Return whether a difference is at most `margin`, either way; `None` where both are possible.

    >>> is_within(Score(0.001, 0.002, (0.0, 0.002), 100), 0.01), is_within(Score(0.03, 0.01, (0.03,), 100), 0.01)
    (True, False)
    """
    if value.low >= -margin and value.high <= margin:
        return True
    return False if value.low > margin or value.high < -margin else None


def alike_within(margin: float, accuracy: Score | None) -> float:
    """Return by how much other accuracies may differ from one to be alike: `margin`, or half of what is wrong with it.

    >>> alike_within(0.02, Score(0.7, 0.01, (0.7,), 100)), round(alike_within(0.02, Score(0.99, 0.0, (0.99,), 9)), 6)
    (0.02, 0.005)
    """
    return margin if accuracy is None else min(margin, (1 - accuracy.mean) / 2)


def in_percent(value: Score | None, sign: str = "") -> str:
    """Return a score in words: the mean, its interval, and the range of the seeds where there are several.

    >>> in_percent(Score(0.9, 0.01, (0.88, 0.92), 100))
    '90.00 ± 1.00 (88.0 to 92.0)'
    """
    if value is None:
        return "diverged"
    spread = ""
    if len(value.of_seeds) > 1:
        spread = f" ({100 * min(value.of_seeds):{sign}.1f} to {100 * max(value.of_seeds):{sign}.1f})"
    return f"{100 * value.mean:{sign}.2f} ± {100 * value.ci95:.2f}{spread}"
