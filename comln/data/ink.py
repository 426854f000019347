"""Drawings as a network for drawings knows them: white ink on black, in the middle, of one size."""

__all__ = ["bright_ink", "centre_ink", "edge_brightness"]

import numpy as np

INK_SHARE = 0.25
"""A pixel shows ink if it is brighter than this share of the brightest one."""
INK_SIDE = 0.5
"""The longer side of the ink, as a share of the picture's side: 14 of the 28 pixels of glyphs, where it is 12 to 18."""


def edge_brightness(pixels: np.ndarray) -> float:
    """Return the median of the pixels along the edge of a picture: the brightness of the ground of a drawing.

    - `pixels`: shape `(height, width)`, uint8.

    >>> edge_brightness(np.array([[200, 200, 90], [200, 0, 200], [200, 200, 200]], np.uint8))
    200.0
    """
    edge = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    return float(np.median(np.concatenate(edge)))


def bright_ink(pixels: np.ndarray, ground: float, dark: bool) -> np.ndarray:
    """Return a picture with black ground and white ink, whatever the grey of paper and pencil; all black if blank.

    - `pixels`: shape `(height, width)`, uint8.
    - `ground`: the brightness of the ground. `dark`: whether ink is darker than that.

    >>> drawing = np.array([[200, 200, 200], [200, 100, 200], [200, 150, 200]], np.uint8)
    >>> bright_ink(drawing, 200.0, dark=True).tolist()
    [[0, 0, 0], [0, 255, 0], [0, 128, 0]]
    """
    above = pixels.astype(np.float32) - np.float32(ground)
    ink = np.maximum(-above if dark else above, 0)
    return np.rint(255 * ink / max(float(ink.max()), 1.0)).astype(np.uint8)


def centre_ink(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return a square picture with the ink in its middle, its longer side `INK_SIDE` of the picture's.

    - `pixels`: white ink on black, shape `(height, width)`, uint8. `side`: pixels a side of the result.

    >>> dot = np.zeros((50, 90), np.uint8)
    >>> dot[:10, :10] = 255
    >>> centred = centre_ink(dot, 28)
    >>> centred.shape, np.flatnonzero(centred.max(axis=0)).tolist() == list(range(7, 21))
    ((28, 28), True)
    """
    from PIL import Image

    inked = pixels > INK_SHARE * pixels.max()
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    result = np.zeros((side, side), np.uint8)
    if not len(rows):
        return result
    ink = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = INK_SIDE * side / max(ink.shape)
    height, width = (max(1, round(scale * length)) for length in ink.shape)
    top, left = (side - height) // 2, (side - width) // 2
    resized = Image.fromarray(ink).resize((width, height), Image.Resampling.BILINEAR)
    result[top : top + height, left : left + width] = np.asarray(resized)
    return result
