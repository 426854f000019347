"""Pictures from files that may be anything: few formats, a limit on pixels, one shape."""

__all__ = ["MOST_PIXELS", "decode_image", "eight_bits", "read_bytes", "read_image"]

import io
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from comln.data.data_error import DataError

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 50_000_000
"""A picture that claims more pixels is refused before it is decoded."""
LARGEST_FILE = 1 << 28
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
EIGHT_BITS = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""What Pillow calls pictures whose numbers go up to 255, or, for "1", are black and white."""
ORIENTATION = 0x0112
"""The tag of EXIF that says how a camera was held."""


def read_image(
    path: Path,
    size: int | None,
    mode: Literal["RGB", "L"] = "RGB",
    crop: bool = False,
    upright: bool = False,
    formats: tuple[str, ...] = FORMATS,
) -> np.ndarray:
    """Return the picture in a file as uint8, shape `(height, width, channel)`; see `decode_image`."""
    return decode_image(read_bytes(path), str(path), size, mode, crop, upright, formats)


def read_bytes(path: Path) -> bytes:
    """Return what a file holds that may be a picture.

    **Raises:** `DataError` where it is too large for one; `OSError`.
    """
    if (found := path.stat().st_size) > LARGEST_FILE:
        raise DataError(path, f"it is refused: {found} bytes are too many for a picture.")
    return path.read_bytes()


def decode_image(
    content: bytes,
    name: str,
    size: int | None,
    mode: Literal["RGB", "L"] = "RGB",
    crop: bool = False,
    upright: bool = False,
    formats: tuple[str, ...] = FORMATS,
) -> np.ndarray:
    """Return a picture as uint8, shape `(height, width, channel)`. What is transparent is shown on white.

    - `name`: of the file that it comes from, for messages.
    - `size`: height and width of the result, bilinear with a filter against aliasing; `None`: as it is.
    - `mode`: "RGB" for three channels, whatever the file has; "L" for one, grey.
    - `crop`: take the largest square in the middle, instead of squeezing the picture into a square.
    - `upright`: turn and mirror it as its EXIF data say, as programs do that show it. Without it, and where these data
      are damaged, the pixels stay as they are stored.
    - `formats`: those that are read, by Pillow's names; of several pictures in a file the first.

    **Raises:** `DataError` where it is damaged, of another format, has more than `MOST_PIXELS`, or numbers that
    `eight_bits` refuses.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=formats)
            if image.width * image.height > MOST_PIXELS:
                raise DataError(name, f"it is refused: {image.width} x {image.height} pixels are too many.")
            image.load()
            image = _on_white(eight_bits(_upright(image) if upright else image, name)).convert(mode)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(name, "it is refused: it claims too many pixels.") from None
    except UnidentifiedImageError:
        raise DataError(name, f"it is not a picture in one of the formats {', '.join(formats)}.") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise DataError(name, f"the picture is damaged ({error}). Get it again or remove it.") from error
    if size is not None and image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side) if crop else None
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
    pixels = np.asarray(image)
    return pixels[..., None] if mode == "L" else pixels


def eight_bits(image: "Image.Image", name: str) -> "Image.Image":
    """Return a picture with numbers up to 255: of 16 bits, each number is divided by 257 and rounded.

    **Raises:** `DataError`, about the file `name`, for numbers without a largest one, such as floating-point numbers.

    >>> from PIL import Image
    >>> picture = Image.fromarray(np.array([[0, 128, 129, 257, 65535]], np.uint16))
    >>> np.asarray(eight_bits(picture, "picture.png")).tolist()
    [[0, 0, 1, 1, 255]]
    """
    from PIL import Image

    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        # The limit keeps the sum below 65,536, where it would begin at zero again.
        return Image.fromarray(((np.minimum(values, 65_407) + 128) // 257).astype(np.uint8))
    if image.mode not in EIGHT_BITS:
        raise DataError(
            name, f"its pixels are numbers without a largest one (mode {image.mode}). Save it with 8 or 16 bits."
        )
    return image


def _on_white(image: "Image.Image") -> "Image.Image":
    """Return a picture without transparency: as it looks on white paper."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _upright(image: "Image.Image") -> "Image.Image":
    """Return a picture turned and mirrored as its EXIF data say, if they can be read."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            orientation = image.getexif().get(ORIENTATION)
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error):
        return image
    turn = turns.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)
