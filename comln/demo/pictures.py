"""From the bytes that a person drops on the page to the picture that the network sees, and back to a file."""

__all__ = ["PictureForm", "as_png"]

import io
from dataclasses import dataclass

import numpy as np

from comln.data.safe_image import decode_image
from comln.typing import UInt8

LIGHT = 127


@dataclass(frozen=True)
class PictureForm:
    """What pictures a network takes.

    - `size`: pixels a side. `channels`: 3 for colours, 1 for grey.
    - `bright_ink`: whether characters are light on dark; drawn dark on light, they are inverted.
    """

    size: int
    channels: int
    bright_ink: bool = False

    def read(self, content: bytes, name: str) -> UInt8[np.ndarray, "height width channel"]:
        """Return the largest square in the middle of a picture, upright, in this form.

        **Raises:** `DataError`, about the file `name`, where it is no picture, damaged or too large.
        """
        mode = "L" if self.channels == 1 else "RGB"
        pixels = decode_image(content, name, self.size, mode, crop=True, upright=True)
        return 255 - pixels if self.bright_ink and on_light_ground(pixels) else pixels


def on_light_ground(pixels: UInt8[np.ndarray, "height width channel"]) -> bool:
    """Return whether the frame of a picture is light.

    >>> on_light_ground(np.full((3, 3, 1), 255, np.uint8)), on_light_ground(np.zeros((3, 3, 1), np.uint8))
    (True, False)
    """
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(np.median(frame) > LIGHT)


def as_png(pixels: UInt8[np.ndarray, "height width channel"]) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(pixels, -1) if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
