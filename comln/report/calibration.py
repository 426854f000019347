r"""Whether probabilities mean what they say: of predictions made with 80 %, 80 % should be right."""

__all__ = ["Calibration", "calibration"]

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Calibration:
    r"""Predictions in bins of the probability that they were made with.

    - `confidence`, `accuracy`: means over the predictions of a bin, in $[0, 1]$; bins without any are left out.
    - `count`: the predictions of each of these bins.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def expected_error(self) -> float:
        r"""The expected calibration error $\sum_b \frac{n_b}{n} |\text{accuracy}_b - \text{confidence}_b|$.

        It is 0 where every bin is right as often as it says, and at most 1 (Naeini et al., 2015; Guo et al., 2017).
        """
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))


def calibration(probabilities: np.ndarray, classes: np.ndarray, bins: int = BINS) -> Calibration:
    """Return how often predictions are right, by the probability of the predicted class, in bins of one width.

    - `probabilities`: shape `(prediction, way)`; at least one row.
    - `classes`: the right way of each, shape `(prediction,)`.

    **Example:** of four predictions made with 75 %, two are right.

    >>> found = calibration(np.tile([0.75, 0.25], (4, 1)), np.array([0, 0, 1, 1]))
    >>> found.confidence.tolist(), found.accuracy.tolist(), found.count.tolist(), found.expected_error
    ([0.75], [0.5], [4], 0.25)
    """
    confidence = np.max(probabilities, axis=1)
    right = np.argmax(probabilities, axis=1) == classes
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0

    def means(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values.astype(float), bins)[used] / count[used]

    return Calibration(means(confidence), means(right), count[used])
