"""Paths and lists that come out of a user's files: names stay inside their folder, texts stay small."""

__all__ = ["inside", "read_json", "read_lines", "read_text"]

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from comln.data.data_error import DataError

LARGEST_TEXT = 1 << 27
LONGEST_PATH = 1024
LONGEST_NAME = 255
"""Bytes of a name, on most file systems."""


def inside(folder: Path, name: str, listed_in: Path) -> Path:
    """Return `folder / name` for a name that a file gives.

    **Raises:** `DataError`, about `listed_in`, where the name is absolute, leads out of the folder or is too long.

    >>> inside(Path("images"), "a/1.png", Path("list.csv")).as_posix()
    'images/a/1.png'
    """
    if len(name) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in name.split("/")):
        raise DataError(listed_in, f"it is refused: it names the file {name[:60]!r}..., a name longer than files have.")
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts or "\\" in name or ":" in name or "\0" in name:
        raise DataError(listed_in, f"it is refused: it names the file {name!r}, which is not inside {folder}.")
    return folder / relative


def read_text(path: Path) -> str:
    """Return a text file.

    **Raises:** `DataError` where it is larger than 128 MiB or not UTF-8.
    """
    size = path.stat().st_size
    if size > LARGEST_TEXT:
        raise DataError(path, f"it is refused: {size} bytes are too many for a list.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"it is not a text in UTF-8 ({error.reason} at byte {error.start}).") from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not empty, without the space around them."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    **Raises:** `DataError` where it is none.
    """
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(path, f"it is not readable as JSON ({error}).") from error
