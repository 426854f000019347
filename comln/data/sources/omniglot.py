"""Omniglot (Lake et al., 2015): 1623 handwritten characters, 20 drawings of each. Ink is bright here."""

__all__ = ["Omniglot"]

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_npz import open_npy
from comln.data.safe_path import inside, read_json, read_lines
from comln.data.sources.arrays import names_of_rows
from comln.data.sources.hdf5 import dataset_of, open_hdf5
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout
from comln.data.sources.pictures import PictureReader, class_folders, folder_split, pictures_in
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes
from comln.data.stored_array import StoredArray

ORIGINAL = {"train": "images_background", "test": "images_evaluation"}
OF_LAKE = {"train": Expected(964, 19_280, each=20), "test": Expected(659, 13_180, each=20)}
OF_VINYALS = {
    "train": Expected(1028, 20_560, each=20),
    "val": Expected(172, 3_440, each=20),
    "test": Expected(423, 8_460, each=20),
}
OF_VINYALS_TURNED = {
    split: Expected(4 * expected.classes, 4 * (expected.examples or 0), each=20)
    for split, expected in OF_VINYALS.items()
}
TURNED = re.compile(r"(?P<character>[^/]+/[^/]+)/rot(?P<angle>000|090|180|270)")


@dataclass(frozen=True)
class Omniglot(AbstractSource):
    """Omniglot, in any of four layouts.

    - `image_size`: height and width to resize drawings of the original size to.
    """

    image_size: int = 28

    def layouts(self) -> tuple[Layout, ...]:
        return (
            Layout(
                "Vinyals et al. in lists (prototypical networks)",
                {split: ("data", f"splits/vinyals/{split}.txt") for split in SPLITS},
                self._listed,
                ("", "omniglot"),
                OF_VINYALS_TURNED,
            ),
            Layout(
                "the original drawings",
                {split: (folder,) for split, folder in ORIGINAL.items()},
                self._original,
                ("", "omniglot-py", "python"),
                OF_LAKE,
            ),
            Layout(
                "arrays (jax-meta)",
                {split: (f"{split}_images.npy", f"{split}_labels.json") for split in SPLITS},
                _arrays,
                ("", "omniglot"),
                OF_VINYALS,
            ),
            Layout(
                "torchmeta",
                {split: ("data.hdf5", f"vinyals_{split}_labels.json") for split in SPLITS},
                self._hdf5,
                ("", "omniglot"),
                OF_VINYALS,
            ),
        )

    def _reader(self) -> PictureReader:
        return PictureReader(self.image_size, mode="L", inverted=True)

    def _original(self, folder: Path, split: str) -> RawSplit:
        characters = [
            (f"{alphabet}/{character}", path)
            for alphabet, alphabet_path in class_folders(folder / ORIGINAL[split])
            for character, path in class_folders(alphabet_path)
        ]
        return folder_split(characters, self._reader(), ())

    def _listed(self, folder: Path, split: str) -> RawSplit:
        path = folder / "splits" / "vinyals" / f"{split}.txt"
        paths: list[Path] = []
        turns: list[int] = []
        names: list[str] = []
        for line in read_lines(path):
            match = TURNED.fullmatch(line)
            if match is None:
                raise DataError(path, f"the line {line!r} is not like Alphabet/character01/rot090.")
            found = pictures_in(inside(folder / "data", match["character"], path))
            paths += found
            turns += [int(match["angle"]) // 90] * len(found)
            names += [line] * len(found)
        class_names, class_of = index_classes(names)
        reader = self._reader()
        return RawSplit(
            class_names,
            class_of,
            reader.example_shape(),
            np.dtype(np.uint8),
            partial(_turned, paths, turns, reader),
            (path, folder / "data"),
            notes={"resize": reader.note(), "ink": "bright"},
        )

    def _hdf5(self, folder: Path, split: str) -> RawSplit:
        path, listed_in = folder / "data.hdf5", folder / f"vinyals_{split}_labels.json"
        triples = read_json(listed_in)
        right = isinstance(triples, list) and all(
            isinstance(triple, list) and len(triple) == 3 and all(isinstance(part, str) for part in triple)
            for triple in triples
        )
        if not right:
            raise DataError(listed_in, "it should be a list of [images folder, alphabet, character].")
        return _drawings(path, listed_in, [tuple(triple) for triple in triples], self.image_size)


def _turned(paths: list[Path], turns: list[int], reader: PictureReader) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), ROWS_AT_ONCE):
        chosen = slice(start, start + ROWS_AT_ONCE)
        yield np.stack([np.rot90(reader(path), turn) for path, turn in zip(paths[chosen], turns[chosen], strict=True)])


def _drawings(path: Path, listed_in: Path, triples: list[tuple[str, ...]], size: int) -> RawSplit:
    """Return torchmeta's drawings: of the original size, ink bright already."""
    datasets = {"/".join(triple[-2:]): "/".join(triple) for triple in triples}
    blocks = partial(_resized, path, dict(sorted(datasets.items())), size)
    counts = [len(block) for block in blocks()]
    return RawSplit(
        tuple(sorted(datasets)),
        np.repeat(np.arange(len(counts)), counts),
        (size, size, 1),
        np.dtype(np.uint8),
        blocks,
        (path, listed_in),
        notes={"resize": PictureReader(size).note(), "ink": "bright"},
    )


def _resized(path: Path, datasets: dict[str, str], size: int) -> Iterator[np.ndarray]:
    from PIL import Image

    with open_hdf5(path) as file:
        for place in datasets.values():
            drawings = dataset_of(path, file, place)
            if drawings.dtype != np.uint8 or drawings.ndim != 3:
                raise DataError(path, f"its {place} is no uint8 of shape (drawings, height, width).")
            resized = [
                Image.fromarray(drawing).resize((size, size), Image.Resampling.BILINEAR) for drawing in drawings[:]
            ]
            yield np.stack([np.asarray(drawing) for drawing in resized])[..., None]


def _arrays(folder: Path, split: str) -> RawSplit:
    path, listed_in = folder / f"{split}_images.npy", folder / f"{split}_labels.json"
    images, rows_of = open_npy(path), read_json(listed_in)
    if images.dtype != np.uint8 or len(images.shape) != 4 or images.shape[3] != 1:
        raise DataError(
            path, f"it holds {images.dtype} of shape {images.shape}, not uint8 (drawings, height, width, 1)."
        )
    class_names, class_of = index_classes(names_of_rows(listed_in, images.shape[0], rows_of))
    return RawSplit(
        class_names,
        class_of,
        images.shape[1:],
        np.dtype(np.uint8),
        partial(_inverted, images),
        (path, listed_in),
        notes={"ink": "bright"},
    )


def _inverted(images: StoredArray) -> Iterator[np.ndarray]:
    return (255 - block for block in images.blocks(ROWS_AT_ONCE))
