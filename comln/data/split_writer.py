"""Write one split of a prepared data set: whole or not at all."""

__all__ = ["SplitWriter", "write_whole"]

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

    - `origin`: what the split is made from and with, by which a later run knows that it is done.
    """

    def __init__(self, folder: Path, split: str, raw: RawSplit, origin: Mapping[str, Any]) -> None:
        self.array, self.list = folder / f"{split}.npy", folder / f"{split}.json"
        self.raw = raw
        self.content = json.dumps(
            {"comln": dict(origin), "classes": raw.class_names, "class_of": raw.class_of.tolist()}, indent=None
        ).encode()
        header = io.BytesIO()
        shape = (len(raw.class_of), *raw.example_shape)
        np.lib.format.write_array_header_1_0(header, {"descr": raw.dtype.str, "fortran_order": False, "shape": shape})
        self.header = header.getvalue()
        self.bytes = len(self.header) + int(np.prod(shape, dtype=np.int64)) * raw.dtype.itemsize

    def is_done(self) -> bool:
        """Whether the split was written already, from the same files in the same way.

        **Raises:** `DataError` where files of these names are somebody else's.
        """
        if not self.array.exists() and not self.list.exists():
            return False
        try:
            found = self.list.read_bytes()
            ours = isinstance(json.loads(found).get("comln"), dict)
        except (OSError, ValueError, AttributeError):
            ours, found = False, b""
        if not ours:
            name = self.array.name if self.array.exists() else self.list.name
            raise DataError(self.array.parent, f"it holds a {name} that comln did not write. Choose another --out.")
        return found == self.content and self.array.exists() and self.array.stat().st_size == self.bytes

    def kept(self) -> Generator[np.ndarray, None, None]:
        """Yield the blocks of a split that is done."""
        return open_npy(self.array).blocks(ROWS_AT_ONCE)

    def write(self, blocks: Iterable[np.ndarray]) -> Generator[np.ndarray, None, None]:
        """Write the blocks, yielding each; the files take their names after the last one."""
        self.array.parent.mkdir(parents=True, exist_ok=True)
        self.list.unlink(missing_ok=True)
        with _whole(self.array) as file:
            file.write(self.header)
            for block in blocks:
                file.write(np.ascontiguousarray(block).data)
                yield block
        write_whole(self.list, self.content)

    def list_sha256(self) -> str:
        """Return the digest of the list of classes."""
        return hashlib.sha256(self.content).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    with _whole(path) as file:
        file.write(content)


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
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
