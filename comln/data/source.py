"""What every data set is, once read: named splits of labelled examples."""

__all__ = ["Split", "content_hash", "split_of"]

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from comln.data.augmentation import AbstractAugmentation
from comln.data.pixel_scaling import PixelScaling


@dataclass(frozen=True)
class Split:
    """The classes of one split ("train", "val" or "test") and their examples; splits share no class.

    - `class_names`: one name for each class.
    - `examples`: images `(example, height, width, channel)` as uint8, or embeddings `(example, feature)` as float32.
      May be a memory map; it is only ever indexed.
    - `class_of`: the class of each example, shape `(example,)`, values in `[0, len(class_names))`.
    - `group_of`: examples of a class that share a group are variants of one original (a glyph's typeface). Support
      and query of an episode never share a group. Where every example is its own original: `numpy.arange`.
    - `content_hash`: a digest of all of the above, by which a run knows its data again.
    - `augmentation`: how a training example is varied, drawn anew for each use. An augmented example may be drawn more
      than once in an episode, since each use makes another image. `None`: examples are used as they are, at most once.
    - `scaling`: how bytes become numbers, after augmentation; in training and in evaluation alike. `None`: they are
      divided by 255.
    """

    class_names: tuple[str, ...]
    examples: np.ndarray
    class_of: np.ndarray
    group_of: np.ndarray
    content_hash: str
    augmentation: AbstractAugmentation | None = None
    scaling: PixelScaling | None = None


def content_hash(splits: Mapping[str, Split]) -> str:
    """Return one digest for all splits of a data set."""
    lines = "\n".join(f"{name} {split.content_hash}" for name, split in sorted(splits.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def split_of(splits: Mapping[str, Split], name: str) -> Split:
    """Return a split by its name.

    **Raises:** `ValueError` where the data set has no such split: Omniglot as its authors split it has no validation.

    >>> split_of({}, "val")
    Traceback (most recent call last):
    ValueError: This data set has no split 'val', only none at all.
    """
    if name not in splits:
        raise ValueError(f"This data set has no split {name!r}, only {', '.join(splits) or 'none at all'}.")
    return splits[name]
