"""Which examples are held out together."""

__all__ = ["stratified_folds"]

import numpy as np

NEVER = -1


def stratified_folds(classes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold in which each example is held out, for classes numbered from zero; -1: in none.

    The examples are dealt out class after class, so that every fold holds out about as many of each class. A class of
    fewer members than folds is held out in as many folds as it has members, one in each; the only member of its class
    never, for nothing would be left to learn it from.

    >>> stratified_folds(np.array([0, 0, 0, 0, 1, 1, 2]), 3).tolist()
    [0, 1, 2, 0, 1, 2, -1]
    """
    counts = np.bincount(classes)
    result = np.full(len(classes), NEVER)
    shared = np.flatnonzero(counts[classes] > 1)
    dealt = shared[np.argsort(classes[shared], kind="stable")]
    result[dealt] = np.arange(len(dealt)) % folds
    return result
