"""A user's folder of files, in folders that are named as classes, or in none: listed with what is left out of it."""

__all__ = ["OwnFile", "OwnFolder", "Skipped", "label_of", "list_folder", "printable"]

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comln.data.class_names import composed
from comln.data.data_error import DataError


@dataclass(frozen=True)
class OwnFile:
    """A file: where it is, its name within the folder as it is shown to people, and its class, if it lies in one."""

    path: Path
    name: str
    label: str | None


@dataclass(frozen=True)
class Skipped:
    """What was left out, by its name within the folder, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class OwnFolder:
    """The files of a folder, in the order of their names, its sub-folders, and what is left out."""

    files: tuple[OwnFile, ...]
    labels: tuple[str, ...]
    skipped: tuple[Skipped, ...]


def list_folder(folder: Path) -> OwnFolder:
    """Return the files directly in a folder and in the folders in it, which are their labels.

    What begins with a dot is left out in silence, as file managers do; deeper folders, links that lead nowhere, and
    what is no file (a pipe, a device) are left out and listed. Links are followed: since folders are entered one deep
    only, none leads in a circle.

    **Raises:** `DataError` where there is no such folder, or one of them may not be read.
    """
    if not folder.is_dir():
        raise DataError(folder, "there is no such folder.")
    files, labels, skipped = [], [], []
    for entry in _entries(folder):
        if entry.is_dir():
            labels.append(label_of(entry.name))
            _take(Path(entry.path), files, skipped)
        else:
            _take_file(entry, None, files, skipped)
    return OwnFolder(tuple(sorted(files, key=lambda file: file.name)), tuple(dict.fromkeys(labels)), tuple(skipped))


def printable(name: str) -> str:
    r"""Return a name in which nothing moves the cursor or cannot be encoded: such characters become escapes.

    >>> printable("a\nb") == r"a\nb", printable("Äpfel 1.png")
    (True, 'Äpfel 1.png')
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def label_of(name: str) -> str:
    """Return the class that a folder, or a label in a file, names: `composed` and `printable`."""
    return printable(composed(name))


def _take(folder: Path, files: list[OwnFile], skipped: list[Skipped]) -> None:
    for entry in _entries(folder):
        if entry.is_dir():
            reason = "it is a folder within a class; only files directly in the folder of a class are read"
            skipped.append(Skipped(f"{printable(folder.name)}/{printable(entry.name)}", reason))
        else:
            _take_file(entry, folder.name, files, skipped)


def _take_file(entry: os.DirEntry[str], folder: str | None, files: list[OwnFile], skipped: list[Skipped]) -> None:
    name = printable(entry.name if folder is None else f"{folder}/{entry.name}")
    if entry.is_file():
        files.append(OwnFile(Path(entry.path), name, None if folder is None else label_of(folder)))
    else:
        broken = "it is a link that leads nowhere" if entry.is_symlink() else "it is not a file"
        skipped.append(Skipped(name, broken))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(folder, f"it cannot be read ({error.strerror}). Change its permissions.") from error
    return iter(found)
