"""Weights of examples, checked."""

__all__ = ["example_weights"]

from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight


def example_weights(sample_weight: Any, features: np.ndarray) -> np.ndarray:
    """Return one weight an example in double precision, all ones by default, or raise `ValueError`.

    >>> example_weights(None, np.zeros((2, 3))).tolist()
    [1.0, 1.0]
    """
    if sample_weight is None:
        return np.ones(len(features))
    return _check_sample_weight(sample_weight, features, dtype=np.float64, ensure_non_negative=True)
