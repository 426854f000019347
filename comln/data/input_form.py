"""What a network expects of an example: by it, a user's own files become such examples."""

__all__ = ["FEW", "MANY", "Ink", "InputForm"]

import enum
import math
from dataclasses import dataclass

from comln.data.pixel_scaling import PixelScaling
from comln.data.sources.embedding_rows import Normalise

FEW = 8
"""Examples of a small block."""
MANY = 64
"""Examples of a large block. Networks are compiled for these two sizes only."""
MOST_NUMBERS = 1 << 26
"""Of a block of `MANY`."""


class Ink(enum.StrEnum):
    """Whether the pictures are drawings, and how ink looks in them.

    - `NONE`: photographs, taken as they are.
    - `BRIGHT`: white ink on black.
    - `CENTRED`: white ink on black, in the middle, of one size.
    """

    NONE = "none"
    BRIGHT = "bright"
    CENTRED = "centred"


@dataclass(frozen=True)
class InputForm:
    """The examples that a run was trained on.

    - `shape`: height, width and channels of an image (3: red, green, blue; 1: grey), or the length of an embedding.
    - `mean`, `std`: by which each channel of pixels in [0, 1] is normalised; empty where they are divided by 255 only.
    - `ink`: how drawings look.
    - `normalise`: what is done to each embedding.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    ink: Ink = Ink.NONE
    normalise: Normalise = "none"

    @property
    def is_image(self) -> bool:
        """Whether the examples are images, not embeddings.

        >>> InputForm((28, 28, 1)).is_image, InputForm((640,)).is_image
        (True, False)
        """
        return len(self.shape) == 3

    @property
    def at_once(self) -> int:
        """How many examples to embed at once: `MANY`, or `FEW` where they are large.

        >>> InputForm((224, 224, 3)).at_once, InputForm((1024, 1024, 3)).at_once
        (64, 8)
        """
        return MANY if MANY * math.prod(self.shape) <= MOST_NUMBERS else FEW

    @property
    def scaling(self) -> PixelScaling | None:
        """How bytes become numbers, as `comln.data.batches.scale_bytes` takes it."""
        return PixelScaling(self.mean, self.std) if self.mean else None
