"""The embeddings of mini- and tieredImageNet that came with LEO (Rusu et al., 2019): 640 numbers an image."""

__all__ = ["LEOMiniImageNet", "LEOTieredImageNet"]

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from comln.data.data_error import DataError
from comln.data.sources.arrays import from_pickle
from comln.data.sources.embedding_rows import Normalise, checked_embeddings, embedding_note
from comln.data.sources.layout import SPLITS, AbstractSource, Expected, Layout
from comln.data.sources.mini_imagenet import EXPECTED as OF_MINI
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes
from comln.data.sources.tiered_imagenet import EXPECTED as OF_TIERED
from comln.data.stored_array import StoredArray

FEATURES = 640


@dataclass(frozen=True)
class LEOMiniImageNet(AbstractSource):
    """LEO's embeddings of miniImageNet.

    - `variant`: of the middle of each image, or of several views of it.
    - `normalise`: "l2" as LEO's authors do, "none" as COMLN's.
    """

    variant: Literal["center", "multiview"] = "center"
    normalise: Normalise = "none"

    def layouts(self) -> tuple[Layout, ...]:
        return (_layout("miniImageNet", self.variant, self.normalise, OF_MINI),)


@dataclass(frozen=True)
class LEOTieredImageNet(AbstractSource):
    """LEO's embeddings of tieredImageNet, of the middle of each image.

    - `normalise`: "l2" as LEO's authors do, "none" as COMLN's.
    """

    normalise: Normalise = "none"

    def layouts(self) -> tuple[Layout, ...]:
        return (_layout("tieredImageNet", "center", self.normalise, OF_TIERED),)


def _layout(data_set: str, variant: str, normalise: Normalise, expected: Mapping[str, Expected]) -> Layout:
    def read(folder: Path, split: str) -> RawSplit:
        return _read(folder / f"{split}_embeddings.pkl", normalise)

    files = {split: (f"{split}_embeddings.pkl",) for split in SPLITS}
    inner = f"{data_set}/{variant}"
    return Layout("Rusu et al. (LEO)", files, read, (f"embeddings/{inner}", inner, variant, ""), expected)


def _read(path: Path, normalise: Normalise) -> RawSplit:
    embeddings, keys = from_pickle(path, "embeddings", "keys")
    right = isinstance(embeddings, StoredArray) and embeddings.dtype.kind == "f" and len(embeddings.shape) == 2
    if not right or embeddings.shape[1] != FEATURES:
        raise DataError(path, f"its embeddings are no floating-point numbers of shape (images, {FEATURES}).")
    names = _texts(path, keys)
    if len(names) != embeddings.shape[0]:
        raise DataError(path, f"{embeddings.shape[0]} embeddings, but {len(names)} keys: the two must be as many.")
    # The file's labels are of no stated type; everyone takes the class from the key.
    class_names, class_of = index_classes(_classes(path, names))
    blocks = partial(embeddings.blocks, ROWS_AT_ONCE)
    return RawSplit(
        class_names,
        class_of,
        (FEATURES,),
        np.dtype(np.float32),
        partial(checked_embeddings, path, blocks, FEATURES, normalise),
        (path,),
        notes=embedding_note(normalise),
    )


def _texts(path: Path, keys: Any) -> list[str]:
    """Return the keys as texts; files differ in whether they are texts or bytes, in an array or a list."""
    values = keys.load().tolist() if isinstance(keys, StoredArray) else keys
    if not isinstance(values, list) or not all(isinstance(value, str | bytes) for value in values):
        raise DataError(path, "its keys are no texts.")
    return [value.decode("latin1") if isinstance(value, bytes) else value for value in values]


def _classes(path: Path, keys: list[str]) -> list[str]:
    """Return the class that each key names twice: something-n01532829-n01532829_5 is of the class n01532829."""
    classes, images = [], set()
    for key in keys:
        parts = key.split("-")
        if len(parts) != 3 or parts[2].split("_")[0] != parts[1]:
            raise DataError(path, f"the key {key[:80]!r} is not like 123-n01532829-n01532829_5.")
        if parts[2] in images:
            raise DataError(path, f"the image {parts[2]} occurs twice.")
        images.add(parts[2])
        classes.append(parts[1])
    return classes
