"""A layout: the files that a data set may come in, found by their exact names."""

__all__ = ["AbstractSource", "Expected", "Found", "Layout", "Normalisation", "probe"]

import abc
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from comln.data.data_error import DataError
from comln.data.sources.raw_split import RawSplit

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Expected:
    """What a split of a known data set has.

    - `classes`, `examples`: how many. `each`: examples of every class, where all have as many.
    """

    classes: int
    examples: int | None = None
    each: int | None = None


@dataclass(frozen=True)
class Layout:
    """One way that a data set comes in files.

    - `name`: who wrote the files, in the words of an error message.
    - `files`: for each split the files it needs, as paths or patterns relative to the folder.
    - `read`: takes the folder and a split to what is in it.
    - `folders`: where in the root the files may lie; "" is the root itself.
    - `expected`: what each split has; empty where nobody can know.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Path, str], RawSplit]
    folders: tuple[str, ...] = ("",)
    expected: Mapping[str, Expected] = field(default_factory=dict)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the channels (R, G, B) of the training images, on pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class AbstractSource(abc.ABC):
    """A data set by name: the layouts that it comes in. Its subclasses are frozen dataclasses of what can be chosen."""

    @property
    def normalisation(self) -> Normalisation | None:
        """How the field normalises its pixels; `None` where nothing is customary."""
        return None

    @abc.abstractmethod
    def layouts(self) -> tuple[Layout, ...]:
        """Return the layouts, the first one found being taken."""


@dataclass(frozen=True)
class Found:
    """A layout that was found, the folder that its files are in, and its splits."""

    layout: Layout
    folder: Path
    splits: tuple[str, ...]


def probe(name: str, root: Path, layouts: Sequence[Layout], allow_partial: bool) -> Found:
    """Return the first layout all of whose files are there.

    - `name`: of the data set, for messages.
    - `allow_partial`: be content with a layout that has all files of at least one split.

    **Raises:** `DataError` that lists every layout tried and the files that it lacks.
    """
    if not root.is_dir():
        raise DataError(root, "there is no such folder. Pass the folder (or archive) that the data set's files are in.")
    partial: list[Found] = []
    tried: list[str] = []
    for layout in layouts:
        missing_least: list[str] | None = None
        for sub_folder in layout.folders:
            folder = root / sub_folder
            missing = {
                split: [file for file in files if not _exists(folder, file)] for split, files in layout.files.items()
            }
            there = tuple(split for split in layout.files if not missing[split])
            if len(there) == len(layout.files):
                return Found(layout, folder, there)
            if there:
                partial.append(Found(layout, folder, there))
            lacking = [str(Path(sub_folder) / file) for files in missing.values() for file in files]
            if missing_least is None or len(lacking) < len(missing_least):
                missing_least = lacking
        tried.append(f"{layout.name} (missing: {', '.join(dict.fromkeys(missing_least or []))})")
    if allow_partial and partial:
        return max(partial, key=lambda found: len(found.splits))
    hint = " Some splits are there: --allow-partial takes them." if partial else ""
    raise DataError(root, f"no files of {name} here.{hint} Looked for: {'; '.join(tried)}.")


def _exists(folder: Path, pattern: str) -> bool:
    try:
        return (folder / pattern).exists() if "*" not in pattern else next(folder.glob(pattern), None) is not None
    except OSError as error:
        if error.errno == errno.EACCES:
            raise DataError(folder, "it may not be read. Change its permissions.") from error
        raise
