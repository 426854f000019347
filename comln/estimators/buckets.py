"""Array sizes are rounded up to a few, so that problems of nearly one size share compiled code."""

__all__ = ["bucket", "padded"]

import numpy as np


def bucket(size: int) -> int:
    """Return the smallest of 2, 3, 4, 6, 8, 12, 16, 24, ... that is at least `size`.

    >>> [bucket(size) for size in (1, 3, 5, 25, 641)]
    [2, 3, 6, 32, 768]
    """
    power = 2
    while power < size:
        power *= 2
    return max(2, 3 * power // 4 if 3 * power // 4 >= size and power > 2 else power)


def padded(array: np.ndarray, shape: tuple[int, ...], fill: float = 0.0) -> np.ndarray:
    """Return `array` in the first corner of an array of `shape` that is `fill` elsewhere, in a new array.

    >>> padded(np.ones((1, 2)), (2, 3)).tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    result = np.full(shape, fill, array.dtype)
    result[tuple(slice(size) for size in array.shape)] = array
    return result
