"""Blocks of embeddings, checked and normalised on their way."""

__all__ = ["Normalise", "checked_embeddings", "embedding_note"]

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from comln.data.data_error import DataError

Normalise = Literal["none", "l2"]
"""What is done to each embedding: nothing, or division by its Euclidean norm."""


def checked_embeddings(
    path: Path, blocks: Callable[[], Iterator[np.ndarray]], features: int, normalise: Normalise
) -> Iterator[np.ndarray]:
    """Yield blocks as float32 of shape `(example, features)`.

    **Raises:** `DataError` for a number that is not finite, another length, and a zero that should be normalised.
    """
    start = 0
    for block in blocks():
        if block.ndim != 2 or block.shape[1] != features:
            raise DataError(path, f"embedding {start} has another length than {features}.")
        block = block.astype(np.float32)
        wrong = ~np.isfinite(block).all(axis=1)
        if wrong.any():
            raise DataError(path, f"embedding {start + int(wrong.argmax())} has a number that is not finite.")
        if normalise == "l2":
            norms = np.linalg.norm(block, axis=1, keepdims=True)
            if not norms.all():
                raise DataError(path, f"embedding {start + int(norms.argmin())} is zero and has no direction.")
            block = block / norms
        yield block
        start += len(block)


def embedding_note(normalise: Normalise) -> dict[str, str]:
    """Return how embeddings are normalised, for the manifest."""
    return {"normalise": normalise}
