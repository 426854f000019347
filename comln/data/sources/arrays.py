"""Splits of images and labels out of pickles and numpy files."""

__all__ = [
    "class_dictionary_split",
    "from_pickle",
    "image_array",
    "labelled_split",
    "names_of_rows",
    "whole_numbers",
]

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_pickle import load_pickle
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes
from comln.data.stored_array import StoredArray


def from_pickle(path: Path, *keys: str) -> list[Any]:
    """Return the values of some keys of the dictionary in a pickle; `None` for a key after "?" that is not there.

    **Raises:** `DataError` where it is no dictionary, or lacks a key.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(
            path, f"it should hold a dictionary with {', '.join(keys)}; it holds a {type(content).__name__}."
        )
    # A file of Python 2 may have been written again with its texts as bytes.
    by_name = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    missing = [key for key in keys if not key.startswith("?") and key not in by_name]
    if missing:
        raise DataError(path, f"it lacks {', '.join(missing)}; it has {', '.join(map(str, by_name)) or 'nothing'}.")
    return [by_name.get(key.removeprefix("?")) for key in keys]


def image_array(path: Path, value: Any, size: int | None) -> StoredArray:
    """Return an array of images after checking that it is one.

    - `size`: height and width that the images must have; `None`: any.

    **Raises:** `DataError` where it is not uint8 of shape `(image, height, width, 3)`.
    """
    wanted = f"uint8 images of shape (images, {size or 'height'}, {size or 'width'}, 3)"
    if not isinstance(value, StoredArray):
        raise DataError(path, f"it should hold {wanted}; it holds a {type(value).__name__}.")
    right = len(value.shape) == 4 and value.shape[3] == 3 and (size is None or value.shape[1:3] == (size, size))
    if value.dtype != np.uint8 or not right:
        raise DataError(path, f"it should hold {wanted}; it holds {value.dtype} of shape {value.shape}.")
    return value


def labelled_split(
    path: Path,
    split: str,
    images: StoredArray,
    labels: Any,
    names: Mapping[int, str] | None,
    channel_order: str = "rgb",
    files: tuple[Path, ...] = (),
) -> RawSplit:
    """Return a split of images with a number for each one's class.

    - `names`: of the classes by number. Without them classes are called by split and number.
    - `channel_order`: of the images in the file; "bgr" is turned round.

    **Raises:** `DataError` where labels and images are not as many, or a label is no whole number or has no name.
    """
    numbers = whole_numbers(path, labels)
    if len(numbers) != images.shape[0]:
        raise DataError(path, f"{images.shape[0]} images, but {len(numbers)} labels: the two must be as many.")
    if names is None:
        class_names, class_of = np.unique(numbers, return_inverse=True)
        texts, of_each = tuple(f"{split} {number}" for number in class_names.tolist()), class_of.astype(np.int64)
    else:
        unnamed = set(np.unique(numbers).tolist()) - names.keys()
        if unnamed:
            raise DataError(path, f"the labels {sorted(unnamed)[:5]} have no name in it.")
        texts, of_each = index_classes([names[number] for number in numbers.tolist()])
    return RawSplit(
        texts,
        of_each,
        images.shape[1:],
        np.dtype(np.uint8),
        partial(_image_blocks, images, channel_order),
        files or (path,),
        named=names is not None,
        notes=_channel_note(channel_order),
    )


def class_dictionary_split(path: Path, images: StoredArray, rows_of: Any) -> RawSplit:
    """Return a split of images with a dictionary from the name of each class to its rows."""
    class_names, class_of = index_classes(names_of_rows(path, images.shape[0], rows_of))
    blocks: Callable[[], Iterator[np.ndarray]] = partial(images.blocks, ROWS_AT_ONCE)
    return RawSplit(class_names, class_of, images.shape[1:], np.dtype(np.uint8), blocks, (path,))


def names_of_rows(path: Path, count: int, rows_of: Any) -> list[str]:
    """Return the name of each row's class, from a dictionary from names to rows.

    **Raises:** `DataError`, about `path`, where the rows are not each of `count` rows exactly once.
    """
    if not isinstance(rows_of, dict) or not rows_of:
        raise DataError(path, "it should have a dictionary from the names of classes to their rows.")
    owner: list[str | None] = [None] * count
    for name, rows in rows_of.items():
        for row in whole_numbers(path, rows).tolist():
            if not 0 <= row < count or owner[row] is not None:
                raise DataError(path, f"row {row} of class {name!r} is not there, or belongs to another class too.")
            owner[row] = str(name)
    if None in owner:
        raise DataError(path, f"row {owner.index(None)} belongs to no class.")
    return [name for name in owner if name is not None]


def whole_numbers(path: Path, values: Any) -> np.ndarray:
    """Return labels or rows as int64, shape `(value,)`.

    **Raises:** `DataError` where they are anything else.
    """
    loaded = values.load() if isinstance(values, StoredArray) else values
    if isinstance(loaded, Sequence) and not isinstance(loaded, str | bytes):
        if not all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in loaded):
            raise DataError(path, "its labels are not whole numbers.")
        try:
            return np.array(loaded, np.int64).reshape(-1)
        except (OverflowError, ValueError):
            raise DataError(path, "its labels are not whole numbers of 64 bits.") from None
    if isinstance(loaded, np.ndarray) and loaded.dtype.kind in "iu" and loaded.size == max(loaded.shape, default=0):
        return loaded.reshape(-1).astype(np.int64)
    raise DataError(path, "its labels are not whole numbers.")


def _image_blocks(images: StoredArray, channel_order: str) -> Iterator[np.ndarray]:
    for block in images.blocks(ROWS_AT_ONCE):
        yield block[..., ::-1] if channel_order == "bgr" else block


def _channel_note(channel_order: str) -> dict[str, str]:
    return {"channel_order": "rgb" if channel_order == "rgb" else "rgb (turned round from the file's bgr)"}
