"""CIFAR-FS (Bertinetto et al., 2019) and FC100 (Oreshkin et al., 2018): CIFAR-100 split by classes, 32 x 32 pixels."""

__all__ = ["CIFARFS", "FC100"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_path import inside, read_json, read_lines
from comln.data.sources.arrays import from_pickle, image_array, labelled_split, whole_numbers
from comln.data.sources.hdf5 import hdf5_split
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout, Normalisation
from comln.data.sources.parquet import parquet_image_split
from comln.data.sources.pictures import PictureReader, class_folders, folder_split
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes
from comln.data.sources.split_file import read_split_file
from comln.data.stored_array import StoredArray

SIZE = 32
READER = PictureReader(SIZE)
RGB_OF_CIFAR = Normalisation(
    mean=(129.37731888 / 255, 124.10583864 / 255, 112.47758569 / 255),
    std=(68.20947949 / 255, 65.43124043 / 255, 70.45866994 / 255),
)
RAW = "cifar-100-python"
OF_CIFAR_FS = {
    "train": Expected(64, 38_400, each=600),
    "val": Expected(16, 9_600, each=600),
    "test": Expected(20, 12_000, each=600),
}
OF_FC100 = {
    "train": Expected(60, 36_000, each=600),
    "val": Expected(20, 12_000, each=600),
    "test": Expected(20, 12_000, each=600),
}


@dataclass(frozen=True)
class CIFARFS(AbstractSource):
    """CIFAR-FS.

    - `split_file`: which classes each split has, for CIFAR-100 as its authors distribute it: JSON with a list of names
      for each of train, val and test.
    """

    split_file: Path | None = None

    @property
    def normalisation(self) -> Normalisation:
        return RGB_OF_CIFAR

    def layouts(self) -> tuple[Layout, ...]:
        parquet = {"train": "train", "val": "validation", "test": "test"}
        return (
            _pickles("CIFAR_FS", OF_CIFAR_FS, ("", "CIFAR-FS", "cifar-fs")),
            Layout(
                "Bertinetto et al.",
                {split: ("cifar100/data", f"cifar100/splits/bertinetto/{split}.txt") for split in SPLITS},
                _listed_folders,
                ("", "cifarfs", "cifar-fs"),
                OF_CIFAR_FS,
            ),
            Layout(
                "learn2learn",
                {split: (f"processed/{split}",) for split in SPLITS},
                _processed,
                ("", "cifarfs", "cifar-fs"),
                OF_CIFAR_FS,
            ),
            _torchmeta("cifar-fs", OF_CIFAR_FS),
            Layout(
                "parquet",
                {split: (f"data/{stem}-*.parquet",) for split, stem in parquet.items()},
                _parquet,
                expected=OF_CIFAR_FS,
            ),
            _original(self.split_file, OF_CIFAR_FS),
        )


@dataclass(frozen=True)
class FC100(AbstractSource):
    """FC100, whose splits share no superclass.

    - `split_file`: which classes each split has, for CIFAR-100 as its authors distribute it: JSON with a list of names,
      of classes or of superclasses, for each of train, val and test.
    """

    split_file: Path | None = None

    @property
    def normalisation(self) -> Normalisation:
        return RGB_OF_CIFAR

    def layouts(self) -> tuple[Layout, ...]:
        return (
            _pickles("FC100", OF_FC100, ("", "FC100", "fc100")),
            _torchmeta("fc100", OF_FC100),
            _original(self.split_file, OF_FC100),
        )


def _pickles(stem: str, expected: Mapping[str, Expected], folders: tuple[str, ...]) -> Layout:
    def read(folder: Path, split: str) -> RawSplit:
        path = folder / f"{stem}_{split}.pickle"
        images, labels = from_pickle(path, "data", "labels")
        return labelled_split(path, split, image_array(path, images, SIZE), labels, None)

    files = {split: (f"{stem}_{split}.pickle",) for split in SPLITS}
    return Layout("Lee et al. (MetaOptNet)", files, read, folders, expected)


def _listed_folders(folder: Path, split: str) -> RawSplit:
    path, data = folder / "cifar100" / "splits" / "bertinetto" / f"{split}.txt", folder / "cifar100" / "data"
    return folder_split([(name, inside(data, name, path)) for name in read_lines(path)], READER, (path,))


def _processed(folder: Path, split: str) -> RawSplit:
    return folder_split(class_folders(folder / "processed" / split), READER, ())


def _parquet(folder: Path, split: str) -> RawSplit:
    stem = "validation" if split == "val" else split
    return parquet_image_split(tuple(sorted(folder.glob(f"data/{stem}-*.parquet"))), split, SIZE)


def _torchmeta(name: str, expected: Mapping[str, Expected]) -> Layout:
    def read(folder: Path, split: str) -> RawSplit:
        path, listed_in = folder / "data.hdf5", folder / name / f"{split}_labels.json"
        pairs = read_json(listed_in)
        right = isinstance(pairs, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs
        )
        if not right:
            raise DataError(listed_in, "it should be a list of pairs of a superclass and a class.")
        datasets = [(fine, f"{coarse}/{fine}") for coarse, fine in pairs]
        return hdf5_split(path, datasets, READER, (path, listed_in))

    files = {split: ("data.hdf5", f"{name}/{split}_labels.json") for split in SPLITS}
    return Layout("torchmeta", files, read, ("", "cifar100"), expected)


def _original(split_file: Path | None, expected: Mapping[str, Expected]) -> Layout:
    """CIFAR-100 as its authors distribute it: five hundred images of each class in one file, one hundred in another."""

    def read(folder: Path, split: str) -> RawSplit:
        if split_file is None:
            raise DataError(
                folder / RAW, "it does not say which classes each split has: give a list with --split-file."
            )
        return _of_original(folder / RAW, split_file, split)

    files = {split: tuple(f"{RAW}/{name}" for name in ("train", "test", "meta")) for split in SPLITS}
    return Layout("CIFAR-100 for Python, with --split-file", files, read, expected=expected)


def _of_original(folder: Path, split_file: Path, split: str) -> RawSplit:
    fine_names, coarse_names = from_pickle(folder / "meta", "fine_label_names", "coarse_label_names")
    if not isinstance(fine_names, list) or not isinstance(coarse_names, list):
        raise DataError(folder / "meta", "its names of classes are no lists.")
    wanted = set(read_split_file(split_file)[split])
    unknown = sorted(wanted - set(fine_names) - set(coarse_names))
    if unknown:
        raise DataError(split_file, f"it names {unknown[0]!r}, which CIFAR-100 has neither as class nor as superclass.")
    parts, labels = [], []
    for path in (folder / "train", folder / "test"):
        images, fine, coarse = from_pickle(path, "data", "fine_labels", "coarse_labels")
        names = _names(path, fine, fine_names)
        kept = np.array(
            [f in wanted or c in wanted for f, c in zip(names, _names(path, coarse, coarse_names), strict=True)]
        )
        parts.append((_planes(path, images, len(names)), kept))
        labels += [name for name, keep in zip(names, kept.tolist(), strict=True) if keep]
    class_names, class_of = index_classes(labels)
    return RawSplit(
        class_names,
        class_of,
        (SIZE, SIZE, 3),
        np.dtype(np.uint8),
        partial(_chosen, parts),
        (folder / "train", folder / "test", folder / "meta", split_file),
        notes={"channel_order": "rgb"},
    )


def _names(path: Path, labels: Any, names: list[str]) -> list[str]:
    numbers = whole_numbers(path, labels)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(names):
        raise DataError(path, f"a label is not one of the {len(names)} names in meta.")
    return [names[number] for number in numbers.tolist()]


def _planes(path: Path, images: Any, count: int) -> StoredArray:
    wanted = (count, 3 * SIZE * SIZE)
    if not isinstance(images, StoredArray) or images.dtype != np.uint8 or images.shape != wanted:
        raise DataError(path, f"its data is no uint8 of shape {wanted}.")
    return images


def _chosen(parts: list[tuple[StoredArray, np.ndarray]]) -> Iterator[np.ndarray]:
    for images, kept in parts:
        start = 0
        for block in images.blocks(ROWS_AT_ONCE):
            # Each row is three planes of one colour.
            pictures = block.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
            yield pictures[kept[start : start + len(block)]]
            start += len(block)
