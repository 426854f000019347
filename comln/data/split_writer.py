"""Write one split of a prepared data set: whole or not at all."""

__all__ = ["SplitWriter", "beside", "whole_file", "write_whole"]

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_npz import open_npy
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit


class SplitWriter:
    """The two files of a split: `<split>.npy`, its examples, and `<split>.json`, its classes and what they came from.

    They are written to the folder `beside`, and take their places in `folder` when `put_in_place` is called.

    - `origin`: what the split is made from and with, by which a later run knows that it is done.
    """

    def __init__(self, folder: Path, split: str, raw: RawSplit, origin: Mapping[str, Any]) -> None:
        self.array, self.list = folder / f"{split}.npy", folder / f"{split}.json"
        self.new_array, self.new_list = beside(folder) / self.array.name, beside(folder) / self.list.name
        self.content = json.dumps(
            {"comln": dict(origin), "classes": raw.class_names, "class_of": raw.class_of.tolist()}, indent=None
        ).encode()
        header = io.BytesIO()
        shape = (len(raw.class_of), *raw.example_shape)
        np.lib.format.write_array_header_1_0(header, {"descr": raw.dtype.str, "fortran_order": False, "shape": shape})
        self.header = header.getvalue()
        self.bytes = len(self.header) + int(np.prod(shape, dtype=np.int64)) * raw.dtype.itemsize

    def verify_ours(self) -> None:
        """Raise `DataError` where files of these names in the folder are somebody else's."""
        if not self.array.exists() and not self.list.exists():
            return
        try:
            ours = isinstance(json.loads(self.list.read_bytes()).get("comln"), dict)
        except (OSError, ValueError, AttributeError):
            ours = False
        if not ours:
            name = self.array.name if self.array.exists() else self.list.name
            raise DataError(self.array.parent, f"it holds a {name} that comln did not write. Choose another --out.")

    def is_done(self) -> bool:
        """Whether the split was written already, from the same files in the same way."""
        return self.is_in_place() or self._is_whole(self.new_array, self.new_list)

    def is_in_place(self) -> bool:
        """Whether it is done and needs not be moved."""
        return self._is_whole(self.array, self.list)

    def kept(self) -> Generator[np.ndarray, None, None]:
        """Yield the blocks of a split that is done."""
        return open_npy(self.array if self.is_in_place() else self.new_array).blocks(ROWS_AT_ONCE)

    def write(self, blocks: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """Write the blocks, yielding each; the files take their names after the last one."""
        self.new_array.parent.mkdir(parents=True, exist_ok=True)
        self.new_list.unlink(missing_ok=True)
        with whole_file(self.new_array) as file:
            file.write(self.header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
                yield block
        write_whole(self.new_list, self.content)

    def put_in_place(self) -> None:
        """Move the two files to their places. However this ends, no array stands beside another's list."""
        self.array.unlink(missing_ok=True)
        os.replace(self.new_list, self.list)
        os.replace(self.new_array, self.array)

    def _is_whole(self, array: Path, listed: Path) -> bool:
        try:
            return listed.read_bytes() == self.content and array.stat().st_size == self.bytes
        except OSError:
            return False

    def list_sha256(self) -> str:
        """Return the digest of the list of classes."""
        return hashlib.sha256(self.content).hexdigest()


def beside(folder: Path) -> Path:
    """Return the folder that the splits of a prepared folder are written to, until all of them are good."""
    return folder / ".comln-unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file under a temporary name, which takes its own when all is written and on the disk."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
