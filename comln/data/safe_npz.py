"""Readers of numpy's own files, `.npy` and `.npz`, that leave the content in the file and never unpickle."""

__all__ = ["open_npy", "open_npz"]

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from comln.data.data_error import DataError
from comln.data.stored_array import FileBytes, StoredArray, ZipBytes

MOST_MEMBERS = 1000
LONGEST_HEADER = 1 << 16
LOCAL_HEADER = 30
PLAIN_KINDS = "biufSU"
HIGHEST_RATIO = 100
RATIO_FREE = 1 << 26
"""Below this many bytes a member may be compressed as well as it likes: a tiny constant array is no bomb."""


def open_npy(path: Path) -> StoredArray:
    """Return the array of an `.npy` file.

    **Raises:** `DataError` for a damaged file, an array of objects, and a file of another size than the array claims.
    """
    with path.open("rb") as file:
        dtype, shape, column_major, start = _header(path, file)
    return _in_file(path, dtype, shape, column_major, start, path.stat().st_size - start)


def open_npz(path: Path) -> dict[str, StoredArray]:
    """Return the arrays of an `.npz` file by name. Where they are not compressed, they are read straight from the file.

    **Raises:** `DataError` for a damaged archive, an array of objects, one that claims more than the file holds, and a
    suspicious compression.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                raise DataError(path, f"it is refused: it has {len(members)} members instead of a few arrays.")
            return {info.filename.removesuffix(".npy"): _member(path, archive, info) for info in members}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(path, f"it is not a readable .npz file ({error}). Get it again.") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> StoredArray:
    if info.file_size > max(RATIO_FREE, HIGHEST_RATIO * info.compress_size):
        raise DataError(
            path,
            f"it is refused: its member {info.filename} claims {info.file_size} bytes from {info.compress_size} "
            "compressed ones, as a decompression bomb does.",
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            path, f"it is refused: its member {info.filename} is compressed in a way that numpy's writers never use."
        )
    with archive.open(info) as file:
        head = file.read(LONGEST_HEADER)
    dtype, shape, column_major, start = _header(path, io.BytesIO(head))
    if info.compress_type == zipfile.ZIP_STORED:
        begin = _content_offset(path, info) + start
        return _in_file(path, dtype, shape, column_major, begin, info.file_size - start)
    array = StoredArray(path, dtype, shape, column_major, ZipBytes(path, info.filename, start))
    _expect(path, array, info.file_size - start)
    return array


def _content_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where in the file an uncompressed member begins, after a header of its own with lengths of its own."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(LOCAL_HEADER)
    if len(local) < LOCAL_HEADER or local[:4] != b"PK\x03\x04":
        raise DataError(path, f"its member {info.filename} has no header: it is damaged. Get it again.")
    name, extra = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    return info.header_offset + LOCAL_HEADER + name + extra


def _header(path: Path, file: io.BytesIO | BinaryIO) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """Return type, shape and order of the array, and where its content begins."""
    stream = cast(BinaryIO, file)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise DataError(path, f"it is refused: it is written in version {version} of numpy's format.")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, column_major, dtype = read(stream)
    except DataError:
        raise
    except (ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise DataError(path, f"it is not a readable numpy file ({str(error)[:200]}).") from error
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize == 0:
        raise DataError(
            path,
            f"it is refused: it holds an array of type {dtype}, which only unpickling could read. Save plain numbers.",
        )
    if any(n < 0 for n in shape):
        raise DataError(path, f"it is refused: an array claims the shape {shape}.")
    return dtype, shape, column_major, stream.tell()


def _in_file(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], column_major: bool, start: int, length: int
) -> StoredArray:
    size = math.prod(shape) * dtype.itemsize
    array = StoredArray(path, dtype, shape, column_major, FileBytes(path, start, size))
    _expect(path, array, min(length, path.stat().st_size - start))
    return array


def _expect(path: Path, array: StoredArray, found: int) -> None:
    if found != array.nbytes:
        raise DataError(
            path,
            f"an array claims the shape {array.shape}, {array.nbytes} bytes, but has {found}: it is truncated or "
            "hostile. Get it again.",
        )
