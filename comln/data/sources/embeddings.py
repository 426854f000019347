"""Embeddings of one's own, with their labels, in `.npz` or parquet files."""

__all__ = ["Embeddings"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_npz import open_npz
from comln.data.sources.embedding_rows import Normalise, checked_embeddings, embedding_note
from comln.data.sources.layout import SPLITS, AbstractSource, Layout
from comln.data.sources.parquet import batches, embedding_batches
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes


@dataclass(frozen=True)
class Embeddings(AbstractSource):
    """Files train, val and test, or one called embeddings, then all of them test classes.

    `.npz`: the arrays `embeddings`, floating-point numbers of shape `(example, feature)`, and `labels`, texts or whole
    numbers of shape `(example,)`. Parquet: the columns `embedding`, lists of numbers, and `label`.

    - `normalise`: "l2" divides each embedding by its Euclidean norm.
    """

    normalise: Normalise = "none"

    def layouts(self) -> tuple[Layout, ...]:
        readers = {"npz": self._npz, "parquet": self._parquet}
        stems = (
            {split: split for split in SPLITS},
            {"train": "train", "val": "validation", "test": "test"},
            {"train": "train", "test": "test"},
            {"test": "embeddings"},
        )
        return tuple(
            Layout(f".{ending}", {split: (f"{stem}.{ending}",) for split, stem in names.items()}, partial(read, names))
            for names in stems
            for ending, read in readers.items()
        )

    def _npz(self, stems: dict[str, str], folder: Path, split: str) -> RawSplit:
        path = folder / f"{stems[split]}.npz"
        arrays = open_npz(path)
        missing = {"embeddings", "labels"} - arrays.keys()
        if missing:
            raise DataError(path, f"it lacks the arrays {', '.join(sorted(missing))}; it has {', '.join(arrays)}.")
        embeddings, labels = arrays["embeddings"], arrays["labels"].load()
        if embeddings.dtype.kind != "f" or len(embeddings.shape) != 2 or not embeddings.shape[1]:
            raise DataError(
                path,
                f"its embeddings are {embeddings.dtype} of shape {embeddings.shape}, not numbers (example, feature).",
            )
        if labels.shape != (embeddings.shape[0],) or labels.dtype.kind not in "iuSU":
            raise DataError(path, f"{embeddings.shape[0]} embeddings need as many labels, texts or whole numbers.")
        blocks = partial(embeddings.blocks, ROWS_AT_ONCE)
        return self._split(path, split, labels.tolist(), blocks, embeddings.shape[1])

    def _parquet(self, stems: dict[str, str], folder: Path, split: str) -> RawSplit:
        path = folder / f"{stems[split]}.parquet"
        labels = [label for batch in batches(path, ["label"]) for label in batch["label"]]
        first = next(embedding_batches(path), None)
        if first is None:
            raise DataError(path, "it has no rows.")
        return self._split(path, split, labels, partial(embedding_batches, path), first.shape[1])

    def _split(
        self,
        path: Path,
        split: str,
        labels: Sequence[Any],
        blocks: Callable[[], Iterator[np.ndarray]],
        features: int,
    ) -> RawSplit:
        texts = [label.decode("utf-8", "replace") if isinstance(label, bytes) else label for label in labels]
        named = all(isinstance(text, str) for text in texts)
        if not named:
            if not all(isinstance(text, int) for text in texts):
                raise DataError(path, "its labels are neither texts nor whole numbers.")
            width = len(str(max(texts, default=0)))
            texts = [f"{split} {number:0{width}d}" for number in texts]
        class_names, class_of = index_classes(texts)
        return RawSplit(
            class_names,
            class_of,
            (features,),
            np.dtype(np.float32),
            partial(checked_embeddings, path, blocks, features, self.normalise),
            (path,),
            named=named,
            notes=embedding_note(self.normalise),
        )
