"""miniImageNet: 100 classes of ImageNet, 600 images of each, in the split of Ravi and Larochelle (2017)."""

__all__ = ["RGB_OF_IMAGENET", "MiniImageNet"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_path import inside, read_json, read_lines
from comln.data.sources.arrays import class_dictionary_split, from_pickle, image_array, labelled_split, whole_numbers
from comln.data.sources.hdf5 import hdf5_split
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout, Normalisation
from comln.data.sources.parquet import parquet_image_split
from comln.data.sources.pictures import PictureReader, csv_rows, folder_split, picture_split
from comln.data.sources.raw_split import RawSplit

STORED_SIZE = 84
EXPECTED = {
    "train": Expected(64, 38_400, each=600),
    "val": Expected(16, 9_600, each=600),
    "test": Expected(20, 12_000, each=600),
}
RGB_OF_IMAGENET = Normalisation(
    mean=(120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255),
    std=(70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255),
)
"""Of mini- and tieredImageNet, as Lee et al. (2019) use them."""


@dataclass(frozen=True)
class MiniImageNet(AbstractSource):
    """miniImageNet, in any of six layouts.

    - `image_size`: height and width to resize pictures of the original size to. Files of 84 x 84 stay so.
    - `vinyals`: accept the lists of Vinyals et al. (2016), which are another split: results do not compare.
    """

    image_size: int = STORED_SIZE
    vinyals: bool = False

    @property
    def normalisation(self) -> Normalisation:
        return RGB_OF_IMAGENET

    def layouts(self) -> tuple[Layout, ...]:
        stem = "miniImageNet_category_split"
        return (
            Layout(
                "Lee et al. (MetaOptNet)",
                {
                    "train": (f"{stem}_train_phase_train.pickle",),
                    "val": (f"{stem}_val.pickle",),
                    "test": (f"{stem}_test.pickle",),
                },
                _labelled,
                ("", "miniImageNet", "mini-imagenet"),
                EXPECTED,
            ),
            _class_dictionaries("Ren et al.", "val"),
            _class_dictionaries("learn2learn", "validation"),
            Layout(
                "Ravi and Larochelle",
                {split: ("images", f"{split}.csv") for split in SPLITS},
                self._listed,
                ("", "miniImageNet", "mini-imagenet"),
                {} if self.vinyals else EXPECTED,
            ),
            Layout(
                "torchmeta",
                {split: (f"{split}_data.hdf5", f"{split}_labels.json") for split in SPLITS},
                _hdf5,
                ("", "miniimagenet"),
                EXPECTED,
            ),
            Layout(
                "R2D2",
                {split: ("data", f"splits/ravi-larochelle/{split}.txt") for split in SPLITS},
                self._folders,
                ("", "miniimagenet"),
                EXPECTED,
            ),
            Layout(
                "parquet",
                {
                    "train": ("data/train-*.parquet",),
                    "val": ("data/validation-*.parquet",),
                    "test": ("data/test-*.parquet",),
                },
                self._parquet,
                expected=EXPECTED,
            ),
        )

    def _listed(self, folder: Path, split: str) -> RawSplit:
        path = folder / f"{split}.csv"
        headings, pictures, labels = csv_rows(path, folder / "images")
        if headings == ("filename", "class") and not self.vinyals:
            raise DataError(
                path,
                "its headings filename,class are those of Vinyals et al., whose split has other classes than that of "
                "Ravi and Larochelle. Get the lists with filename,label, or take these with --vinyals.",
            )
        return picture_split(pictures, labels, PictureReader(self.image_size), (path, folder / "images"))

    def _folders(self, folder: Path, split: str) -> RawSplit:
        path = folder / "splits" / "ravi-larochelle" / f"{split}.txt"
        classes = [(name, inside(folder / "data", name, path)) for name in read_lines(path)]
        return folder_split(classes, PictureReader(self.image_size), (path,))

    def _parquet(self, folder: Path, split: str) -> RawSplit:
        stem = "validation" if split == "val" else split
        return parquet_image_split(tuple(sorted(folder.glob(f"data/{stem}-*.parquet"))), split, self.image_size)


def _class_dictionaries(writer: str, val: str) -> Layout:
    def path(folder: Path, split: str) -> Path:
        return folder / f"mini-imagenet-cache-{val if split == 'val' else split}.pkl"

    def read(folder: Path, split: str) -> RawSplit:
        file = path(folder, split)
        images, rows_of = from_pickle(file, "image_data", "class_dict")
        return class_dictionary_split(file, image_array(file, images, STORED_SIZE), rows_of)

    files = {split: (path(Path(), split).name,) for split in SPLITS}
    return Layout(writer, files, read, ("", "mini-imagenet", "miniimagenet"), EXPECTED)


def _labelled(folder: Path, split: str) -> RawSplit:
    # The files `..._train_phase_{val,test}` hold further images of the training classes: not wanted here.
    phase = "train_phase_train" if split == "train" else split
    path = folder / f"miniImageNet_category_split_{phase}.pickle"
    images, labels, number_of = from_pickle(path, "data", "labels", "?catname2label")
    names = None
    if isinstance(number_of, dict):
        numbers = whole_numbers(path, list(number_of.values()))
        names = dict(zip(numbers.tolist(), map(str, number_of), strict=True))
    return labelled_split(path, split, image_array(path, images, STORED_SIZE), labels, names)


def _hdf5(folder: Path, split: str) -> RawSplit:
    path, listed_in = folder / f"{split}_data.hdf5", folder / f"{split}_labels.json"
    names = read_json(listed_in)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(listed_in, "it should be a list of class names.")
    datasets = [(name, f"datasets/{name}") for name in np.unique(names).tolist()]
    return hdf5_split(path, datasets, PictureReader(STORED_SIZE), (path, listed_in))
