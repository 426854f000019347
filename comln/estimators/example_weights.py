"""Weights of examples and of their classes, checked."""

__all__ = ["class_weights", "example_weights"]

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight


def example_weights(sample_weight: Any, features: np.ndarray) -> np.ndarray:
    """Return one weight an example in double precision, the largest of them one, or raise `ValueError`.

    Only their ratios mean something, and divided by the largest they neither overflow nor vanish in single precision.

    >>> example_weights(None, np.zeros((2, 3))).tolist(), example_weights([1e-300, 2e-300], np.zeros((2, 3))).tolist()
    ([1.0, 1.0], [0.5, 1.0])
    """
    if sample_weight is None:
        return np.ones(len(features))
    weights = _check_sample_weight(sample_weight, features, dtype=np.float64, ensure_non_negative=True)
    return weights / np.max(weights)


def class_weights(class_weight: Any, names: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weights that `class_weight` gives to the classes `names`, or raise `ValueError`.

    - `class_weight`: a dictionary, or `"balanced"`: in inverse proportion to the weight of a class's examples. A class
      whose examples have no weight gets none.
    - `y`, `weights`: class and weight of each example.

    >>> class_weights("balanced", np.arange(3), np.array([0, 0, 1, 2]), np.array([1.0, 1.0, 1.0, 0.0])).tolist()
    [0.75, 1.5, 0.0]
    """
    if isinstance(class_weight, dict):
        result = compute_class_weight(class_weight, classes=names, y=y)
        if not np.all((result >= 0) & (result < np.inf)):
            raise ValueError(f"`class_weight` must hold finite numbers, at least 0, got {class_weight}.")
        return result
    if not isinstance(class_weight, str) or class_weight != "balanced":
        raise ValueError(f'`class_weight` must be a dictionary, "balanced" or None, got {class_weight!r}.')
    kept = weights > 0
    there = np.isin(names, y[kept])
    result = np.zeros(len(names))
    result[there] = compute_class_weight("balanced", classes=names[there], y=y[kept], sample_weight=weights[kept])
    return result
