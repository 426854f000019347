"""Splits of pictures in files of their own, decoded and resized block by block."""

__all__ = ["SUFFIXES", "PictureReader", "class_folders", "csv_rows", "folder_split", "picture_split", "pictures_in"]

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_image import read_image
from comln.data.safe_path import inside, read_text
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
"""Ends of the names of pictures, in lower case."""


@dataclass(frozen=True)
class PictureReader:
    """How pictures become examples.

    - `size`: height and width. `mode`: "RGB", or "L" for one channel. `crop`: take the middle square, rather than
      squeezing the picture into one.
    - `inverted`: whether dark becomes bright. `upright`: whether they are turned as their EXIF data say.
    """

    size: int
    mode: Literal["RGB", "L"] = "RGB"
    crop: bool = False
    inverted: bool = False
    upright: bool = False

    def __call__(self, path: Path) -> np.ndarray:
        """Return one picture, shape `(size, size, channel)`, uint8."""
        pixels = read_image(path, self.size, self.mode, self.crop, self.upright)
        return 255 - pixels if self.inverted else pixels

    def example_shape(self) -> tuple[int, int, int]:
        """Return the shape of an example."""
        return (self.size, self.size, 3 if self.mode == "RGB" else 1)

    def note(self) -> str:
        """Return how the pictures are resized, in words."""
        what = "middle square" if self.crop else "whole picture"
        what += ", turned as EXIF says," if self.upright else ""
        return f"{what} to {self.size} x {self.size}, bilinear with a filter against aliasing"


def picture_split(
    paths: Sequence[Path], class_of_each: Sequence[str], reader: PictureReader, files: tuple[Path, ...]
) -> RawSplit:
    """Return a split of pictures, each with the name of its class."""
    class_names, class_of = index_classes(class_of_each)
    return RawSplit(
        class_names,
        class_of,
        reader.example_shape(),
        np.dtype(np.uint8),
        partial(_blocks, tuple(paths), reader),
        files,
        notes={"channel_order": "rgb", "resize": reader.note()},
    )


def folder_split(folders: Sequence[tuple[str, Path]], reader: PictureReader, files: tuple[Path, ...]) -> RawSplit:
    """Return a split of folders of pictures, each with the name of its class.

    **Raises:** `DataError` for a folder without pictures.
    """
    paths, names = [], []
    for name, folder in folders:
        found = pictures_in(folder)
        if not found:
            raise DataError(folder, f"it holds no pictures ({', '.join(sorted(SUFFIXES))}).")
        paths += found
        names += [name] * len(found)
    return picture_split(paths, names, reader, (*files, *(folder for _, folder in folders)))


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, by name.

    **Raises:** `DataError` where there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(folder, "there is no such folder, but a list of classes names it.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def class_folders(folder: Path) -> list[tuple[str, Path]]:
    """Return the folders in a folder, hidden ones left out, with their names, sorted."""
    return sorted((path.name, path) for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def csv_rows(path: Path, folder: Path) -> tuple[tuple[str, str], list[Path], list[str]]:
    """Return the two headings of a list of pictures in CSV, the pictures, and the class of each.

    **Raises:** `DataError` for rows that are no pair, and for a file that is not inside `folder`.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(read_text(path))) if row]
    except csv.Error as error:
        raise DataError(path, f"it is not readable as CSV ({error}).") from error
    wrong = next((row for row in rows if len(row) != 2), None)
    if len(rows) < 2 or wrong is not None:
        raise DataError(path, "it should have the two columns filename and label.")
    paths = [inside(folder, name, path) for name, _ in rows[1:]]
    missing = next((found for found in paths if not found.is_file()), None)
    if missing is not None:
        raise DataError(path, f"it lists {missing.name}, which is not in {folder}.")
    return (rows[0][0].strip(), rows[0][1].strip()), paths, [label.strip() for _, label in rows[1:]]


def _blocks(paths: tuple[Path, ...], reader: PictureReader) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), ROWS_AT_ONCE):
        yield np.stack([reader(path) for path in paths[start : start + ROWS_AT_ONCE]])
