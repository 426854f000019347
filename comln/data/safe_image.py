"""Pictures from files that may be anything: few formats, a limit on pixels, one shape."""

__all__ = ["MOST_PIXELS", "decode_image", "read_image"]

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from comln.data.data_error import DataError

MOST_PIXELS = 50_000_000
"""A picture that claims more pixels is refused before it is decoded."""
LARGEST_FILE = 1 << 28
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")


def read_image(path: Path, size: int | None, mode: Literal["RGB", "L"] = "RGB", crop: bool = False) -> np.ndarray:
    """Return the picture in a file as uint8, shape `(height, width, channel)`; see `decode_image`."""
    if (found := path.stat().st_size) > LARGEST_FILE:
        raise DataError(path, f"it is refused: {found} bytes are too many for a picture.")
    return decode_image(path.read_bytes(), str(path), size, mode, crop)


def decode_image(
    content: bytes, name: str, size: int | None, mode: Literal["RGB", "L"] = "RGB", crop: bool = False
) -> np.ndarray:
    """Return a picture as uint8, shape `(height, width, channel)`.

    - `name`: of the file that it comes from, for messages.
    - `size`: height and width of the result, bilinear with a filter against aliasing; `None`: as it is.
    - `mode`: "RGB" for three channels, whatever the file has; "L" for one, grey.
    - `crop`: take the largest square in the middle, instead of squeezing the picture into a square.

    **Raises:** `DataError` where it is damaged, of another format than PNG, JPEG, BMP, GIF or WebP, or has more than
    `MOST_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            if image.width * image.height > MOST_PIXELS:
                raise DataError(name, f"it is refused: {image.width} x {image.height} pixels are too many.")
            image = image.convert(mode)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(name, "it is refused: it claims too many pixels.") from None
    except UnidentifiedImageError:
        raise DataError(name, f"it is not a picture in one of the formats {', '.join(FORMATS)}.") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise DataError(name, f"the picture is damaged ({error}). Get it again or remove it.") from error
    if size is not None and image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side) if crop else None
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
    pixels = np.asarray(image)
    return pixels[..., None] if mode == "L" else pixels
