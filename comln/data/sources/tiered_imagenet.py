"""tieredImageNet (Ren et al., 2018): 608 classes of ImageNet, split by the 34 kinds of things that they belong to."""

__all__ = ["TieredImageNet"]

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_image import decode_image
from comln.data.safe_npz import open_npz
from comln.data.sources.arrays import from_pickle, image_array, labelled_split, whole_numbers
from comln.data.sources.hdf5 import hdf5_split, names_in
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout, Normalisation
from comln.data.sources.mini_imagenet import RGB_OF_IMAGENET
from comln.data.sources.pictures import PictureReader
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes
from comln.data.stored_array import StoredArray

SIZE = 84
EXPECTED = {
    "train": Expected(351, 448_695),
    "val": Expected(97, 124_261),
    "test": Expected(160, 206_209),
}


@dataclass(frozen=True)
class TieredImageNet(AbstractSource):
    """tieredImageNet, in any of three layouts.

    - `channel_order`: of the images in the user's files. "auto": bgr for `.npz`, which Ren et al.'s program writes
      with OpenCV, and rgb for pictures in PNG. Examples are always rgb.
    """

    channel_order: Literal["auto", "rgb", "bgr"] = "auto"

    @property
    def normalisation(self) -> Normalisation:
        return RGB_OF_IMAGENET

    def layouts(self) -> tuple[Layout, ...]:
        folders = ("", "tiered-imagenet", "tieredImageNet", "tieredimagenet")
        return (
            Layout(
                "Lee et al. (MetaOptNet)",
                {split: (f"{split}_images.npz", f"{split}_labels.pkl") for split in SPLITS},
                self._npz,
                folders,
                EXPECTED,
            ),
            Layout(
                "Ren et al.",
                {split: (f"{split}_images_png.pkl", f"{split}_labels.pkl") for split in SPLITS},
                self._png,
                folders,
                EXPECTED,
            ),
            Layout("torchmeta", {split: (f"{split}_data.hdf5",) for split in SPLITS}, _hdf5, folders, EXPECTED),
        )

    def _npz(self, folder: Path, split: str) -> RawSplit:
        path, labels_path = folder / f"{split}_images.npz", folder / f"{split}_labels.pkl"
        arrays = open_npz(path)
        if "images" not in arrays:
            raise DataError(path, f"it lacks the array images; it has {', '.join(arrays) or 'nothing'}.")
        labels, names = _labels(labels_path)
        order = "bgr" if self.channel_order == "auto" else self.channel_order
        images = image_array(path, arrays["images"], SIZE)
        return labelled_split(path, split, images, labels, names, order, (path, labels_path))

    def _png(self, folder: Path, split: str) -> RawSplit:
        from comln.data.safe_pickle import load_pickle

        path, labels_path = folder / f"{split}_images_png.pkl", folder / f"{split}_labels.pkl"
        pictures = load_pickle(path)
        if not isinstance(pictures, list) or not all(isinstance(picture, StoredArray) for picture in pictures):
            raise DataError(path, "it should hold a list of pictures, each as an array of bytes.")
        labels, names = _labels(labels_path)
        numbers = whole_numbers(labels_path, labels)
        if len(numbers) != len(pictures):
            raise DataError(path, f"{len(pictures)} pictures, but {len(numbers)} labels in {labels_path.name}.")
        class_names, class_of = index_classes([_name(labels_path, names, split, n) for n in numbers.tolist()])
        order = "rgb" if self.channel_order == "auto" else self.channel_order
        return RawSplit(
            class_names,
            class_of,
            (SIZE, SIZE, 3),
            np.dtype(np.uint8),
            partial(_decoded, path, pictures, order),
            (path, labels_path),
            named=names is not None,
            notes={"channel_order": "rgb" if order == "rgb" else "rgb (turned round from the file's bgr)"},
        )


def _labels(path: Path) -> tuple[Any, Mapping[int, str] | None]:
    """Return the label of each image, and the names of the classes where the file has them."""
    labels, specific, names = from_pickle(path, "?labels", "?label_specific", "?label_specific_str")
    if labels is None and specific is None:
        raise DataError(path, "it lacks both labels and label_specific.")
    if isinstance(names, Sequence) and not isinstance(names, str):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        return (specific if labels is None else labels), None
    return (specific if labels is None else labels), {int(number): str(name) for number, name in names.items()}


def _name(path: Path, names: Mapping[int, str] | None, split: str, number: int) -> str:
    if names is None:
        return f"{split} {number:03d}"
    if number not in names:
        raise DataError(path, f"the label {number} has no name in it.")
    return names[number]


def _decoded(path: Path, pictures: Sequence[StoredArray], order: str) -> Iterator[np.ndarray]:
    for start in range(0, len(pictures), ROWS_AT_ONCE):
        chosen = pictures[start : start + ROWS_AT_ONCE]
        block = np.stack([decode_image(picture.load().tobytes(), str(path), SIZE) for picture in chosen])
        yield block[..., ::-1] if order == "bgr" else block


def _hdf5(folder: Path, split: str) -> RawSplit:
    path = folder / f"{split}_data.hdf5"
    return hdf5_split(path, [(name, f"datasets/{name}") for name in names_in(path, "datasets")], PictureReader(SIZE))
