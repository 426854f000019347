"""Numbers against the number of steps: as they were measured, as they would go on, and where two lines cross."""

__all__ = ["Estimate", "crossing", "go_on"]

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number, and whether it was `measured` or is extrapolated from others that were."""

    value: float
    measured: bool


def go_on(steps: Sequence[int], values: Sequence[float], at: int) -> float:
    """Return what `values` at `steps` come to beyond the last of them, at `at`.

    They go on along the line through the last two, or at the last one's height if that line falls; a single one goes
    on in proportion, which is more than a fixed cost and a cost of each step would come to.

    >>> go_on([1, 10, 20], [9.0, 30.0, 50.0], 100)
    210.0
    >>> go_on([2], [3.0], 10)
    15.0
    >>> go_on([1, 10], [4.0, 3.0], 100)
    3.0
    """
    if len(steps) == 1:
        return values[0] * at / steps[0]
    slope = (values[-1] - values[-2]) / (steps[-1] - steps[-2])
    return values[-1] + max(slope, 0.0) * (at - steps[-1])


def crossing(steps: Sequence[int], rising: Sequence[float], others: Sequence[float]) -> float | None:
    """Return the number of steps at which `rising` comes above `others`, by straight lines between `steps`.

    `None` if it never does; the first of `steps` if it is above from there.

    >>> crossing([1, 11], [0.0, 10.0], [5.0, 5.0])
    6.0
    >>> crossing([1, 11], [0.0, 1.0], [5.0, 5.0]) is None
    True
    """
    gaps = [a - b for a, b in zip(rising, others, strict=True)]
    if gaps and gaps[0] > 0:
        return float(steps[0])
    for i in range(1, len(gaps)):
        if gaps[i] > 0:
            return steps[i - 1] + (steps[i] - steps[i - 1]) * -gaps[i - 1] / (gaps[i] - gaps[i - 1])
    return None
