"""Array sizes are rounded up to a few, so that problems of nearly one size share compiled code."""

__all__ = ["bucket", "padded"]

import numpy as np


def bucket(size: int, least: int) -> int:
    """Return the smallest of 4, 6, 8, 12, 16, 24, 32, ... that is at least `size` and at least `least`.

    >>> [bucket(size, least=4) for size in (1, 5, 25, 641)]
    [4, 6, 32, 768]
    """
    size = max(size, least)
    power = 4
    while power < size:
        power *= 2
    return 3 * power // 4 if power > 4 and 3 * power // 4 >= size else power


def padded(array: np.ndarray, shape: tuple[int, ...], fill: float = 0.0) -> np.ndarray:
    """Return `array` in the first corner of an array of `shape` that is `fill` elsewhere, in a new array.

    >>> padded(np.ones((1, 2)), (2, 3)).tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    result = np.full(shape, fill, array.dtype)
    result[tuple(slice(size) for size in array.shape)] = array
    return result
