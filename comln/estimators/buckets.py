"""Array sizes are rounded up to a few, so that problems of nearly one size share compiled code."""

__all__ = ["bucket", "padded"]

import numpy as np


def bucket(size: int, least: int) -> int:
    """Return the smallest of 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ... that is at least `size` and at least `least`.

    >>> [bucket(size, least=4) for size in (1, 9, 25, 641)]
    [4, 10, 28, 768]
    """
    size = max(size, least)
    quarter = 1
    while 8 * quarter < size:
        quarter *= 2
    return max(4, -(-size // quarter)) * quarter


def padded(array: np.ndarray, shape: tuple[int, ...], fill: float = 0.0) -> np.ndarray:
    """Return `array` in the first corner of an array of `shape` that is `fill` elsewhere, in a new array.

    >>> padded(np.ones((1, 2)), (2, 3)).tolist()
    [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    result = np.full(shape, fill, array.dtype)
    result[tuple(slice(size) for size in array.shape)] = array
    return result
