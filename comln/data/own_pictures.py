"""A user's pictures, of any format and size, as the examples that a network expects."""

__all__ = ["OWN_FORMATS", "InkOf", "OwnPictures"]

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from comln.data.data_error import DataError
from comln.data.ink import bright_ink, centre_ink, edge_brightness
from comln.data.input_form import Ink, InputForm
from comln.data.own_files import OwnFile, Skipped, printable
from comln.data.safe_image import FORMATS, decode_image, read_bytes

OWN_FORMATS = (*FORMATS, "TIFF", "PPM", "ICO", "AVIF", "JPEG2000", "SGI", "QOI")
"""Formats that Pillow reads by itself and knows by how a file begins. Not among them: those that start a program."""
InkOf = Literal["auto", "dark", "bright"]
"""Ink of a user's drawings: darker or brighter than its ground, or each picture as it looks."""


@dataclass
class OwnPictures:
    """Reads pictures; what cannot be read is passed over and kept in `skipped`.

    - `form`: what the network expects. `ink`: of the user's drawings, where it expects drawings.
    - `skipped`: what was passed over, in order. `dark`, `bright`: how many drawings had such ink.
    """

    form: InputForm
    ink: InkOf = "auto"
    skipped: list[Skipped] = field(default_factory=list)
    dark: int = 0
    bright: int = 0

    def blocks(self, files: Iterable[OwnFile], size: int) -> Iterator[tuple[list[OwnFile], np.ndarray]]:
        """Yield files that could be read with their examples, `size` at a time, the last ones fewer.

        Examples are uint8, of shape `(example, height, width, channel)`.
        """
        read: list[tuple[OwnFile, np.ndarray]] = []
        for file in files:
            try:
                read.append((file, self.read(file.path)))
            except DataError as error:
                reason = printable(str(error).removeprefix(f"{file.path}: "))
                self.skipped.append(Skipped(file.name, reason))
            if len(read) == size:
                yield _together(read)
                read = []
        if read:
            yield _together(read)

    def read(self, path: Path) -> np.ndarray:
        """Return the picture in a file, as `decode` does.

        **Raises:** `DataError`, also where it cannot be read.
        """
        try:
            content = read_bytes(path)
        except OSError as error:
            raise DataError(path, f"it cannot be read ({error.strerror or error}).") from error
        return self.decode(content, str(path))

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Return one picture, shape `(height, width, channel)`, uint8.

        - `name`: of the file that it comes from, for messages.

        **Raises:** `DataError` where it is no picture, is damaged, has too many pixels, or is blank where ink is
        expected.
        """
        drawing = self.form.ink is not Ink.NONE
        side, channels = self.form.shape[0], self.form.shape[2]
        try:
            with warnings.catch_warnings():
                # Libraries warn of details that do not matter to the pixels.
                warnings.simplefilter("ignore", UserWarning)
                pixels = decode_image(
                    content,
                    name,
                    None if drawing else side,
                    "RGB" if channels == 3 else "L",
                    crop=True,
                    upright=True,
                    formats=_known_formats(),
                )
        except DataError:
            raise
        except Exception as error:  # what readers of damaged files raise is nowhere listed
            raise DataError(name, f"the picture is damaged ({error}). Get it again or remove it.") from error
        return self._drawn(name, pixels[..., 0])[..., None] if drawing else pixels

    def _drawn(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Return a drawing as the network knows them, `(height, width)`. One of the right size is not moved."""
        side = self.form.shape[0]
        darkest, brightest = float(pixels.min()), float(pixels.max())
        if darkest == brightest:
            raise DataError(name, "it is blank.")
        if self.ink == "auto":
            ground = edge_brightness(pixels)
            dark = ground > float(pixels.mean())
        else:
            dark = self.ink == "dark"
            ground = brightest if dark else darkest
        self.dark, self.bright = self.dark + dark, self.bright + (not dark)
        if pixels.shape == (side, side):
            return 255 - pixels if dark else pixels
        inked = bright_ink(pixels, ground, dark)
        return centre_ink(inked, side) if self.form.ink is Ink.CENTRED else _squeezed(inked, side)


def _squeezed(pixels: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR))


def _together(read: Sequence[tuple[OwnFile, np.ndarray]]) -> tuple[list[OwnFile], np.ndarray]:
    return [file for file, _ in read], np.stack([pixels for _, pixels in read])


def _known_formats() -> tuple[str, ...]:
    """Return the formats that this build of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in OWN_FORMATS if name in Image.OPEN)
