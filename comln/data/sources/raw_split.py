"""One split as it lies in a user's files: its labels in memory, its examples read block by block."""

__all__ = ["ROWS_AT_ONCE", "RawSplit", "index_classes"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comln.data.class_names import composed

ROWS_AT_ONCE = 256
"""Examples of a block."""


@dataclass(frozen=True)
class RawSplit:
    """The classes and examples of one split.

    - `class_names`: sorted. `class_of`: the class of each example, shape `(example,)`.
    - `example_shape`, `dtype`: of one example; uint8 for images, float32 for embeddings.
    - `blocks`: yields the examples in the order of `class_of`, some at a time; may be called again.
    - `files`: what it is read from: files, and folders of pictures.
    - `named`: whether `class_names` are names that two splits could share, rather than bare numbers.
    - `notes`: what was decided in reading, such as the order of channels.
    """

    class_names: tuple[str, ...]
    class_of: np.ndarray
    example_shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[np.ndarray]]
    files: tuple[Path, ...]
    named: bool = True
    notes: Mapping[str, str] = field(default_factory=dict)


def index_classes(class_of_each: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the sorted names of the classes, `composed`, and the class of each example as a position among them.

    >>> names, class_of = index_classes(["owl", "cat", "owl"])
    >>> names, class_of.tolist()
    (('cat', 'owl'), [1, 0, 1])
    """
    class_of_each = [composed(name) for name in class_of_each]
    names = sorted(set(class_of_each))
    place = {name: index for index, name in enumerate(names)}
    return tuple(names), np.fromiter((place[name] for name in class_of_each), np.int64, len(class_of_each))
