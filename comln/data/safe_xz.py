"""Read an .xz file with a limit on memory, which the standard library's reader has not."""

__all__ = ["open_xz"]

import io
import lzma
from pathlib import Path
from typing import Any

from comln.data.data_error import DataError

LZMA_MEMORY = 1 << 27
"""Bytes that the decoder may take; files of the highest level, -9, need half of this."""
PIECE = 1 << 20


def open_xz(path: Path) -> io.BufferedReader:
    """Return an open file of what an .xz file unpacks to, which can only be read from its beginning to its end.

    **Raises:** on reading, `DataError` where the decoder would take more than 128 MiB, since a file chooses how much of
    what is behind it refers to; `lzma.LZMAError` and `EOFError` where it is damaged.
    """
    return io.BufferedReader(_Unpacked(path), PIECE)


class _Unpacked(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb")
        self._decoder = _decoder()

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes, as many as there are at once; return how many."""
        content = b""
        while not content:
            if self._decoder.eof:
                packed = self._next_stream()
                if not packed:
                    return 0
                self._decoder = _decoder()
            elif self._decoder.needs_input:
                packed = self._file.read(PIECE)
                if not packed:
                    raise EOFError("it ends early")
            else:
                packed = b""
            try:
                content = self._decoder.decompress(packed, len(buffer))
            except lzma.LZMAError as error:
                if "limit" not in str(error):
                    raise
                reason = f"it is refused: unpacking it takes more than {LZMA_MEMORY >> 20} MiB of memory."
                raise DataError(self._path, reason) from error
        buffer[: len(content)] = content
        return len(content)

    def _next_stream(self) -> bytes:
        """Return the beginning of what follows a stream that has ended, after zeros; empty at the end of the file."""
        packed = self._decoder.unused_data
        while not packed.lstrip(b"\0"):
            packed = self._file.read(PIECE)
            if not packed:
                return b""
        return packed.lstrip(b"\0")


def _decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=LZMA_MEMORY)
