"""Unpack an archive that may be anything: nothing lands outside its folder, nothing fills the disk."""

__all__ = ["ARCHIVES", "unpack"]

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from comln.data.data_error import DataError
from comln.data.safe_path import inside
from comln.data.safe_xz import open_xz

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Ends of the names of archives that can be unpacked."""
LARGEST = 64 << 30
MOST_MEMBERS = 2_000_000
"""Files, and in a tar archive folders too."""
HIGHEST_RATIO = 200
LARGEST_HEADERS = 1 << 20
"""Bytes between the files of a tar archive: long names, times, and the like."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
PIECE = 1 << 20


def unpack(archive: Path, folder: Path, largest: int = LARGEST) -> None:
    """Unpack the files of a zip or tar archive into a folder, which is empty or does not exist.

    Each file has the time of the archive's last change: unpacked again, it is the same file.

    - `largest`: bytes that they may have together.

    **Raises:** `DataError` for a member that leads out of the folder, is a link or a device or occurs twice, for more
    than `largest` bytes, 200 times the archive's own or nine tenths of what the disk has free, for a decoder that would
    take much memory, and for a damaged archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    room = int(0.9 * shutil.disk_usage(folder).free)
    limit = min(largest, max(1 << 26, HIGHEST_RATIO * archive.stat().st_size))
    members = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    unpacked, count, changed = 0, 0, archive.stat().st_mtime_ns
    try:
        for name, content in members(archive):
            count += 1
            path = inside(folder, name, archive)
            if count > MOST_MEMBERS:
                raise DataError(archive, f"it is refused: it has more than {MOST_MEMBERS} members.")
            if path.exists():
                raise DataError(archive, f"it is refused: its member {name!r} occurs twice.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while piece := content.read(PIECE):
                    unpacked += len(piece)
                    if unpacked > limit:
                        raise DataError(
                            archive,
                            f"it is refused: it unpacks to more than {limit} bytes, as a decompression bomb does.",
                        )
                    if unpacked > room:
                        raise DataError(
                            archive,
                            f"it unpacks to more than the {room} bytes that {folder} has room for. Free space, set "
                            "TMPDIR to a folder with more, or unpack it yourself and pass its folder.",
                        )
                    file.write(piece)
            os.utime(path, ns=(changed, changed))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise DataError(archive, f"it is damaged ({error}). Get it again.") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # So gzip and bz2 say that their content is damaged.
        raise DataError(archive, f"it is damaged ({error}). Get it again.") from error


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            # The upper half of the attributes is a Unix mode, which can say that the member is a link.
            kind = (info.external_attr >> 16) & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise DataError(archive, f"it is refused: its member {info.filename!r} is a link or a device.")
            if info.compress_type not in ZIP_METHODS:
                raise DataError(
                    archive,
                    f"it is refused: its member {info.filename!r} is compressed by method {info.compress_type}. "
                    "Unpack it yourself and pass its folder.",
                )
            if not info.is_dir():
                with opened.open(info) as content:
                    yield info.filename, content


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with _decompressed(archive) as file:
        headers = _Headers(archive, file)
        opened, count = tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:"), 0
        while (info := opened.next()) is not None:
            cast(Any, opened).members.clear()  # which would be kept for looking up, half a kilobyte each
            count += 1
            if count > MOST_MEMBERS:
                raise DataError(archive, f"it is refused: it has more than {MOST_MEMBERS} members.")
            headers.left = None
            if not (info.isreg() or info.isdir()):
                raise DataError(archive, f"it is refused: its member {info.name[:200]!r} is a link or a device.")
            content = opened.extractfile(info) if info.isreg() else None
            if content is not None:
                yield info.name, content
            headers.left = LARGEST_HEADERS


def _decompressed(archive: Path) -> io.BufferedIOBase:
    with archive.open("rb") as file:
        head = file.read(6)
    for beginning, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", open_xz)):
        if head.startswith(beginning):
            return cast(io.BufferedIOBase, opened(archive))
    return archive.open("rb")


class _Headers:
    """A file as `tarfile` reads it, which may take little between two members: it reads a name in one piece.

    It goes forward only, as `tarfile` does here.

    - `left`: bytes that may be read until the next member; `None` while a member's content is read.
    """

    def __init__(self, archive: Path, file: io.BufferedIOBase) -> None:
        self._archive, self._file = archive, file
        self.left: int | None = LARGEST_HEADERS
        self._place = 0

    def tell(self) -> int:
        """Return how many bytes are behind."""
        return self._place

    def seek(self, place: int) -> None:
        """Go on to a place, leaving out what is before it.

        **Raises:** `tarfile.ReadError` where it is behind, to which only a damaged archive leads.
        """
        if place < self._place:
            raise tarfile.ReadError("a member begins before the end of the one before it")
        while self._place < place:
            piece = self._file.read(min(PIECE, place - self._place))
            if not piece:
                return
            self._place += len(piece)

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        **Raises:** `DataError` where they would be too many.
        """
        if self.left is not None:
            self.left -= size
            if self.left < 0:
                raise DataError(
                    self._archive,
                    f"it is refused: it has more than {LARGEST_HEADERS >> 20} MiB between two members, as a "
                    "decompression bomb does.",
                )
        content = self._file.read(size)
        self._place += len(content)
        return content
