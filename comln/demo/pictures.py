"""Pictures on their way between server and page: as PNG files of just the pixels that the network sees."""

__all__ = ["as_png", "from_png"]

import io

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_image import decode_image
from comln.typing import UInt8


def as_png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, -1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def from_png(content: bytes, shape: tuple[int, ...]) -> UInt8[np.ndarray, "height width channel"]:
    """Return the picture that `as_png` wrote, of `shape`, not changed in any way.

    **Raises:** `DataError` where it is not a PNG file of this height and width.

    >>> pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    >>> from_png(as_png(pixels), (2, 2, 1)).ravel().tolist()
    [0, 1, 2, 3]
    """
    pixels = decode_image(content, "picture", None, "L" if shape[2] == 1 else "RGB", formats=("PNG",))
    if pixels.shape != shape:
        height, width, _ = pixels.shape
        raise DataError(
            "picture",
            f"it has {width} x {height} pixels, not {shape[1]} x {shape[0]}. Send what /api/picture answered.",
        )
    return pixels
