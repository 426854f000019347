"""Mean and standard deviation of the channels of many images, taken in block by block."""

__all__ = ["ChannelStatistics"]

from collections.abc import Sequence

import numpy as np


class ChannelStatistics:
    """Counts how often each channel has each of the 256 values.

    >>> statistics = ChannelStatistics()
    >>> statistics.add(np.array([[[[0, 255]]], [[[255, 255]]]], np.uint8))
    >>> statistics.mean(), statistics.std()
    ((0.5, 1.0), (0.5, 0.0))
    """

    def __init__(self) -> None:
        self._counts: np.ndarray | None = None

    def add(self, images: np.ndarray) -> None:
        """Take in images of shape `(image, height, width, channel)`, uint8."""
        channels = images.shape[-1]
        counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(channels)])
        self._counts = counts if self._counts is None else self._counts + counts

    def mean(self) -> tuple[float, ...]:
        """Return the mean of each channel, on pixels in [0, 1]."""
        return self._moment(np.arange(256) / 255)

    def std(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel, on pixels in [0, 1]."""
        squares = self._moment((np.arange(256) / 255) ** 2)
        return tuple(max(0.0, s - m * m) ** 0.5 for s, m in zip(squares, self.mean(), strict=True))

    def looks_reversed(self, customary: Sequence[float]) -> bool:
        """Whether the means fit the customary ones better with the first and the last channel exchanged."""
        measured, wanted = np.array(self.mean()), np.array(customary)
        return bool(np.abs(measured[::-1] - wanted).sum() < np.abs(measured - wanted).sum())

    def _moment(self, values: np.ndarray) -> tuple[float, ...]:
        if self._counts is None:
            raise ValueError("No images were taken in.")
        return tuple((self._counts @ values / self._counts.sum(axis=1)).tolist())
