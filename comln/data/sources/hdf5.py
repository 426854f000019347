"""Splits of torchmeta's HDF5 files, with the optional library h5py."""

__all__ = ["DatasetOfClass", "dataset_of", "hdf5_split", "names_in", "open_hdf5"]

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_image import decode_image
from comln.data.sources.pictures import PictureReader
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit

DatasetOfClass = tuple[str, str]
"""The name of a class, and the path of its dataset in the file."""
HIGHEST_RATIO = 100
RATIO_FREE = 1 << 26


def open_hdf5(path: Path) -> Any:
    """Return an open HDF5 file, to be used in `with`.

    **Raises:** `DataError` where it is none, and where h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise DataError(path, "reading HDF5 needs h5py. Install it with: pip install 'comln[hdf5]'.") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(path, f"it is not a readable HDF5 file ({error}). Get it again.") from error


def hdf5_split(
    path: Path, datasets: Sequence[DatasetOfClass], reader: PictureReader, files: tuple[Path, ...] = ()
) -> RawSplit:
    """Return a split of an HDF5 file with one dataset for each class: images as an array, or as files in bytes.

    - `datasets`: in the order of the names of the classes.
    - `reader`: how pictures are decoded; an array must have its shape already.

    **Raises:** `DataError` for a missing dataset, one that refers to another file, and one of another type or shape.
    """
    datasets = sorted(datasets)
    with open_hdf5(path) as file:
        counts = [len(_images(path, file, place, reader)) for _, place in datasets]
    class_of = np.repeat(np.arange(len(datasets)), counts)
    blocks: Callable[[], Iterator[np.ndarray]] = partial(_blocks, path, tuple(datasets), reader)
    return RawSplit(
        tuple(name for name, _ in datasets),
        class_of,
        reader.example_shape(),
        np.dtype(np.uint8),
        blocks,
        files or (path,),
        notes={"channel_order": "rgb"},
    )


def names_in(path: Path, group: str) -> list[str]:
    """Return the sorted names of what a group at the root of an HDF5 file holds.

    **Raises:** `DataError` where there is no such group, also where the name is a link or a dataset.
    """
    with open_hdf5(path) as file:
        import h5py  # after the call that says so where it is not installed

        # Of a dataset, each row would be a name; a link could lead to another file, or nowhere.
        if not isinstance(file.get(group, getlink=True), h5py.HardLink) or file.get(group, getclass=True) != h5py.Group:
            raise DataError(path, f"it has no group {group} of its own.")
        return sorted(file[group])


def dataset_of(path: Path, file: Any, place: str) -> Any:
    """Return the dataset at a place of an open file, never one of another file.

    **Raises:** `DataError` where there is none, where it is a link, and where it claims far more than the file holds.
    """
    import h5py

    node: Any = file
    for part in place.strip("/").split("/"):
        # A soft or external link could lead anywhere, also to another file.
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise DataError(path, f"it has no dataset {place} of its own.")
        node = node[part]
    if not isinstance(node, h5py.Dataset) or node.external or node.is_virtual:
        raise DataError(path, f"it is refused: its {place} is no dataset of its own.")
    # A chunk is read as a whole, even where the dataset has only a part of it.
    claimed = max(node.nbytes, math.prod(node.chunks or ()) * node.dtype.itemsize)
    if claimed > max(RATIO_FREE, HIGHEST_RATIO * path.stat().st_size):
        raise DataError(path, f"it is refused: its {place} claims {claimed} bytes, as a decompression bomb does.")
    return node


def _images(path: Path, file: Any, place: str, reader: PictureReader) -> Any:
    """Return the dataset at a place after checking that it holds pictures as bytes, or images of the reader's shape."""
    import h5py

    dataset, shape = dataset_of(path, file, place), reader.example_shape()
    if h5py.check_vlen_dtype(dataset.dtype) == np.uint8 and dataset.ndim == 1:
        return dataset
    if dataset.dtype != np.uint8 or dataset.shape[1:] != shape:
        found = f"{dataset.dtype} of shape {dataset.shape}"
        raise DataError(path, f"its {place} is {found}, not uint8 images of shape {shape}.")
    return dataset


def _blocks(path: Path, datasets: tuple[DatasetOfClass, ...], reader: PictureReader) -> Iterator[np.ndarray]:
    with open_hdf5(path) as file:
        for _, place in datasets:
            dataset = _images(path, file, place, reader)
            for start in range(0, len(dataset), ROWS_AT_ONCE):
                stop = min(start + ROWS_AT_ONCE, len(dataset))
                try:
                    if dataset.dtype != object:
                        yield dataset[start:stop]
                        continue
                    # One by one: many rows may refer to the same large bytes.
                    yield np.stack([_decoded(f"{path}:{place}", dataset[row], reader) for row in range(start, stop)])
                except OSError as error:
                    raise DataError(path, f"its {place} is damaged ({error}). Get it again.") from error


def _decoded(name: str, content: np.ndarray, reader: PictureReader) -> np.ndarray:
    return decode_image(content.tobytes(), name, reader.size, reader.mode, reader.crop)
