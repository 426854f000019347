"""Arrays that stay in their file: known by type, shape and place, and read in blocks."""

__all__ = ["FileBytes", "StoredArray", "ZipBytes"]

import codecs
import math
import zipfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comln.data.data_error import DataError

PIECE = 1 << 22
LARGEST_LOADED = 1 << 30


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A run of bytes in a file.

    - `offset`, `length`: where it lies in the file.
    - `encoding`: the text encoding that old pickles wrap bytes in, one character for each byte; `None` where the run
      is the bytes themselves.
    """

    path: Path
    offset: int
    length: int
    encoding: str | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, some megabytes at a time.

        **Raises:** `DataError` where the file ends early or the text does not stand for bytes.
        """
        decoder = codecs.getincrementaldecoder(self.encoding)() if self.encoding else None
        left = self.length
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                piece = file.read(min(left, PIECE))
                if not piece:
                    raise DataError(self.path, f"it ends {left} bytes early: it is truncated. Get it again.")
                left -= len(piece)
                try:
                    yield piece if decoder is None else decoder.decode(piece, final=not left).encode("latin1")
                except UnicodeError as error:
                    raise DataError(self.path, f"a text in it does not stand for bytes ({error}).") from error


@dataclass(frozen=True, slots=True)
class ZipBytes:
    """The bytes of a compressed member of a zip archive after its first `skip`."""

    path: Path
    member: str
    skip: int

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes, some megabytes at a time.

        **Raises:** `DataError` where the member is damaged.
        """
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                file.read(self.skip)
                while piece := file.read(PIECE):
                    yield piece
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(self.path, f"its member {self.member} is damaged ({error}). Get it again.") from error


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file, not read yet.

    - `dtype`, `shape`: of the array. `column_major`: whether its first axis varies fastest.
    - `content`: its bytes, or where they are.

    >>> array = StoredArray(Path("x"), np.dtype("u1"), (3, 2), False, bytes(range(6)))
    >>> [block.tolist() for block in array.blocks(2)]
    [[[0, 1], [2, 3]], [[4, 5]]]
    """

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    column_major: bool
    content: bytes | FileBytes | ZipBytes

    @property
    def nbytes(self) -> int:
        """How many bytes the array has."""
        return math.prod(self.shape) * self.dtype.itemsize

    def load(self) -> np.ndarray:
        """Return the whole array: for labels and keys, and for one picture.

        **Raises:** `DataError` where it is larger than one GiB, or its bytes are not as many as its shape says.
        """
        if self.nbytes > LARGEST_LOADED:
            raise DataError(self.path, f"an array of shape {self.shape} is too large to be read as a whole.")
        content = bytearray()
        for piece in self._pieces():
            content += piece
            if len(content) > self.nbytes:
                break
        self._expect(len(content))
        flat = np.frombuffer(bytes(content), self.dtype)
        return flat.reshape(self.shape, order="F" if self.column_major else "C")

    def blocks(self, rows: int) -> Generator[np.ndarray, None, None]:
        """Yield the array in blocks of `rows` along its first axis, the last one shorter.

        **Raises:** `DataError` where its bytes are not as many as its shape says.
        """
        if self.column_major and len(self.shape) > 1:
            whole = self.load()
            yield from (whole[start : start + rows] for start in range(0, len(whole), rows))
            return
        row_shape, seen, waiting = self.shape[1:], 0, bytearray()
        size = rows * math.prod(row_shape) * self.dtype.itemsize
        for piece in self._pieces():
            seen += len(piece)
            if seen > self.nbytes:
                break
            waiting += piece
            while len(waiting) >= size > 0:
                yield np.frombuffer(bytes(waiting[:size]), self.dtype).reshape(rows, *row_shape)
                del waiting[:size]
        self._expect(seen)
        if waiting:
            yield np.frombuffer(bytes(waiting), self.dtype).reshape(-1, *row_shape)

    def _pieces(self) -> Iterator[bytes]:
        return iter((self.content,)) if isinstance(self.content, bytes) else self.content.pieces()

    def _expect(self, found: int) -> None:
        if found != self.nbytes:
            more = "more than" if found > self.nbytes else f"{found} instead of"
            raise DataError(
                self.path,
                f"an array of shape {self.shape} has {more} {self.nbytes} bytes: it is damaged. Get it again.",
            )
