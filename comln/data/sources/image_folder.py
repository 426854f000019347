"""Pictures of one's own: a folder for each class, of any name and with any number of pictures."""

__all__ = ["ImageFolder"]

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comln.data.data_error import DataError
from comln.data.safe_path import inside, read_lines
from comln.data.sources.layout import SPLITS, AbstractSource, Layout
from comln.data.sources.pictures import PictureReader, class_folders, folder_split
from comln.data.sources.raw_split import RawSplit
from comln.data.sources.split_file import read_split_file

FOLDERS = (
    {"train": "train", "val": "val", "test": "test"},
    {"train": "train", "val": "validation", "test": "test"},
    {"train": "train", "test": "test"},
)


@dataclass(frozen=True)
class ImageFolder(AbstractSource):
    """A folder of pictures, in folders by split and class, or by class with a list of the splits.

    - `image_size`: height and width; of each picture, turned as its camera was held, the middle square is taken.
    - `split_file`: which classes each split has: JSON with a list of names for each of train, val and test. Without
      it, and without folders or lists by split, all classes are test classes.
    """

    image_size: int = 84
    split_file: Path | None = None

    def layouts(self) -> tuple[Layout, ...]:
        if self.split_file is not None:
            # Every picture lies under the root: the root is all that must be there.
            given = [split for split, names in read_split_file(self.split_file).items() if names]
            return (Layout("classes, with --split-file", {split: (".",) for split in given}, self._by_file),)
        by_folder = (
            Layout(
                "folders by split and class",
                {split: (name,) for split, name in names.items()},
                partial(self._by_folder, names),
            )
            for names in FOLDERS
        )
        by_list = (
            Layout("classes, with lists by split", {split: (f"{split}.txt",) for split in splits}, self._by_list)
            for splits in (SPLITS, ("train", "test"))
        )
        return (*by_folder, *by_list, Layout("classes", {"test": ("*/*.*",)}, self._everything))

    def _by_folder(self, folders: dict[str, str], folder: Path, split: str) -> RawSplit:
        return self._read(folder / folders[split], class_folders(folder / folders[split]))

    def _by_list(self, folder: Path, split: str) -> RawSplit:
        path = folder / f"{split}.txt"
        return self._read(path, [(name, inside(folder, name, path)) for name in read_lines(path)])

    def _by_file(self, folder: Path, split: str) -> RawSplit:
        if self.split_file is None:
            raise DataError(folder, "there is no list of splits.")
        names = read_split_file(self.split_file)[split]
        return self._read(self.split_file, [(name, inside(folder, name, self.split_file)) for name in names])

    def _everything(self, folder: Path, split: str) -> RawSplit:
        return self._read(folder, class_folders(folder))

    def _read(self, source: Path, classes: list[tuple[str, Path]]) -> RawSplit:
        if not classes:
            raise DataError(source, "it names no classes: each class should be a folder of pictures.")
        return folder_split(classes, PictureReader(self.image_size, crop=True, upright=True), ())
