"""A user's folder of files, in folders that are named as classes, or in none: listed with what is left out of it."""

__all__ = ["OwnFile", "OwnFolder", "Skipped", "list_folder", "printable"]

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from comln.data.data_error import DataError


@dataclass(frozen=True)
class OwnFile:
    """A file: where it is, its name within the folder as it is shown to people, and the folder in that, if any."""

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
            label = printable(entry.name)
            labels.append(label)
            _take(Path(entry.path), label, files, skipped)
        else:
            _take_file(entry, None, files, skipped)
    return OwnFolder(tuple(sorted(files, key=lambda file: file.name)), tuple(dict.fromkeys(labels)), tuple(skipped))


def printable(name: str) -> str:
    r"""Return a name in which nothing moves the cursor or cannot be encoded: such characters become escapes.

    What looks alike is alike: accents are composed (NFC), which some systems keep apart from their letters in names.

    >>> printable("a\nb") == r"a\nb", printable("Äpfel 1.png"), len(printable("A\u0308"))
    (True, 'Äpfel 1.png', 1)
    """
    composed = unicodedata.normalize("NFC", name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in composed)


def _take(folder: Path, label: str, files: list[OwnFile], skipped: list[Skipped]) -> None:
    for entry in _entries(folder):
        if entry.is_dir():
            reason = "it is a folder within a class; only files directly in the folder of a class are read"
            skipped.append(Skipped(f"{label}/{printable(entry.name)}", reason))
        else:
            _take_file(entry, label, files, skipped)


def _take_file(entry: os.DirEntry[str], label: str | None, files: list[OwnFile], skipped: list[Skipped]) -> None:
    name = printable(entry.name) if label is None else f"{label}/{printable(entry.name)}"
    if entry.is_file():
        files.append(OwnFile(Path(entry.path), name, label))
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
