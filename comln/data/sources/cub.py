"""CUB-200-2011 (Wah et al., 2011): 200 species of birds, in folders of pictures of any size."""

__all__ = ["CUB"]

from dataclasses import dataclass
from pathlib import Path

from comln.data.data_error import DataError
from comln.data.safe_path import inside
from comln.data.sources.hdf5 import hdf5_split, names_in
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout
from comln.data.sources.pictures import PictureReader, class_folders, folder_split
from comln.data.sources.raw_split import RawSplit
from comln.data.sources.split_file import read_split_file

OF_CHEN = {"train": Expected(100, 5_885), "val": Expected(50, 2_950), "test": Expected(50, 2_953)}
REMAINDERS = {"train": (0, 2), "val": (1,), "test": (3,)}
"""Chen et al. (2019) number the sorted folders; these remainders by 4 belong to each split."""


@dataclass(frozen=True)
class CUB(AbstractSource):
    """CUB-200-2011.

    - `image_size`: height and width; of each picture the middle square is taken, for want of a convention.
    - `split_file`: another split than that of Chen et al. (2019): JSON with a list of the names of folders for each of
      train, val and test.
    """

    image_size: int = 84
    split_file: Path | None = None

    def layouts(self) -> tuple[Layout, ...]:
        expected = OF_CHEN if self.split_file is None else {}
        return (
            Layout(
                "the original pictures",
                {split: ("images",) for split in SPLITS},
                self._folders,
                ("CUB_200_2011", "", "cub/CUB_200_2011"),
                expected,
            ),
            Layout("torchmeta", {split: (f"{split}_data.hdf5",) for split in SPLITS}, self._hdf5, ("", "cub"), OF_CHEN),
        )

    def _folders(self, folder: Path, split: str) -> RawSplit:
        images = folder / "images"
        if self.split_file is not None:
            names = read_split_file(self.split_file)[split]
            classes = [(name, inside(images, name, self.split_file)) for name in names]
            return folder_split(classes, self._reader(), (self.split_file,))
        everything = class_folders(images)
        if not everything:
            raise DataError(images, "it holds no folders of pictures.")
        chosen = [pair for index, pair in enumerate(everything) if index % 4 in REMAINDERS[split]]
        return folder_split(chosen, self._reader(), ())

    def _hdf5(self, folder: Path, split: str) -> RawSplit:
        path = folder / f"{split}_data.hdf5"
        return hdf5_split(path, [(name, f"datasets/{name}") for name in names_in(path, "datasets")], self._reader())

    def _reader(self) -> PictureReader:
        return PictureReader(self.image_size, crop=True)
