"""One file of embeddings, with the labels and the names of the files that they are of, if any: read, and written."""

__all__ = ["EMBEDDING_SUFFIXES", "EmbeddingFile", "is_embedding_file", "open_embeddings", "write_embeddings"]

import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_npz import open_npz
from comln.data.sources.embedding_rows import checked_embeddings
from comln.data.sources.parquet import batches, embedding_batches, open_parquet
from comln.data.sources.raw_split import ROWS_AT_ONCE
from comln.data.split_writer import whole_file

EMBEDDING_SUFFIXES = (".npz", ".parquet")
"""Ends of the names of such files."""
Block = tuple[np.ndarray, Sequence[str], Sequence[str | None]]
"""Some embeddings, the names of their files, and their labels."""


@dataclass(frozen=True)
class EmbeddingFile:
    """Embeddings in a file, of which only labels and names are in memory.

    - `features`: numbers of an embedding. `count`: how many there are.
    - `labels`: of each, as text; `None` where the file has none. `names`: of the file that each is of; likewise.
    - `blocks`: yields the embeddings, float32 of shape `(example, feature)`, some at a time.
    """

    path: Path
    features: int
    count: int
    labels: tuple[str, ...] | None
    names: tuple[str, ...] | None
    blocks: Callable[[], Iterator[np.ndarray]]


def is_embedding_file(path: Path) -> bool:
    """Return whether a path is that of a file of embeddings, by its name.

    >>> is_embedding_file(Path("mine.npz")), is_embedding_file(Path("folder"))
    (True, False)
    """
    return path.suffix.lower() in EMBEDDING_SUFFIXES and not path.is_dir()


def open_embeddings(path: Path) -> EmbeddingFile:
    """Return the embeddings in an `.npz` or parquet file.

    `.npz`: the arrays `embeddings`, and perhaps `labels` (texts or whole numbers) and `files` (texts). Parquet: the
    columns `embedding`, and perhaps `label` and `file`.

    **Raises:** `DataError` where there is no such file, or its arrays do not fit together.
    """
    if not path.is_file():
        raise DataError(path, "there is no such file.")
    return _open_npz(path) if path.suffix.lower() == ".npz" else _open_parquet(path)


def _open_npz(path: Path) -> EmbeddingFile:
    arrays = open_npz(path)
    if "embeddings" not in arrays:
        raise DataError(path, f"it lacks the array embeddings; it has {', '.join(arrays) or 'none'}.")
    embeddings = arrays["embeddings"]
    if embeddings.dtype.kind != "f" or len(embeddings.shape) != 2 or not embeddings.shape[1]:
        raise DataError(
            path, f"its embeddings are {embeddings.dtype} of shape {embeddings.shape}, not numbers (example, feature)."
        )
    count, features = embeddings.shape
    columns = {name: arrays[name].load() for name in ("labels", "files") if name in arrays}
    for name, column in columns.items():
        if column.shape != (count,) or column.dtype.kind not in "iuSU":
            raise DataError(path, f"{count} embeddings need as many {name}, texts or whole numbers.")
    blocks = partial(checked_embeddings, path, partial(embeddings.blocks, ROWS_AT_ONCE), features, "none")
    texts = {name: _texts(path, column.tolist()) for name, column in columns.items()}
    return EmbeddingFile(path, features, count, texts.get("labels"), texts.get("files"), blocks)


def _open_parquet(path: Path) -> EmbeddingFile:
    file = open_parquet(path)
    there = [name for name in ("label", "file") if name in file.schema_arrow.names]
    columns: dict[str, list[Any]] = {name: [] for name in there}
    for batch in batches(path, there) if there else ():
        for name in there:
            columns[name] += batch[name]
    first = next(embedding_batches(path), None)
    if first is None:
        raise DataError(path, "it has no rows.")
    features, texts = first.shape[1], {name: _texts(path, column) for name, column in columns.items()}
    blocks = partial(checked_embeddings, path, partial(embedding_batches, path), features, "none")
    return EmbeddingFile(path, features, file.metadata.num_rows, texts.get("label"), texts.get("file"), blocks)


def _texts(path: Path, values: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str | bytes | int) for value in values):
        raise DataError(path, "its labels or file names are neither texts nor whole numbers.")
    return tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values)


def write_embeddings(path: Path, features: int, labelled: bool, blocks: Iterable[Block]) -> int:
    """Write embeddings, as they come, to an `.npz` or parquet file, whole or not at all; return how many there were.

    - `features`: numbers of an embedding. `labelled`: whether labels are written; then each has one.

    **Raises:** `DataError` for another kind of file, for parquet without pyarrow, and where there were none.
    """
    if path.suffix.lower() not in EMBEDDING_SUFFIXES:
        raise DataError(path, f"its name should end in {' or '.join(EMBEDDING_SUFFIXES)}.")
    with whole_file(path) as file:
        write = _write_npz if path.suffix.lower() == ".npz" else _write_parquet
        count = write(path, file, features, labelled, blocks)
        if not count:
            raise DataError(path, "not written, since there is nothing to write.")
    return count


def _write_npz(path: Path, file: BinaryIO, features: int, labelled: bool, blocks: Iterable[Block]) -> int:
    names, labels = [], []
    # How many embeddings there are is known after the last of them, but stands before the first.
    with tempfile.TemporaryFile(dir=path.parent) as waiting:
        for embeddings, of_files, of_classes in blocks:
            waiting.write(np.ascontiguousarray(embeddings, "<f4").data)
            names += of_files
            labels += of_classes
        waiting.seek(0)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open("embeddings.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), features)}
                np.lib.format.write_array_header_1_0(cast(BinaryIO, member), header)
                while piece := waiting.read(1 << 22):
                    member.write(piece)
            for name, texts in (("files", names), ("labels", labels)):
                if name == "files" or labelled:
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(cast(BinaryIO, member), np.array(texts, np.str_), allow_pickle=False)
    return len(names)


def _write_parquet(path: Path, file: BinaryIO, features: int, labelled: bool, blocks: Iterable[Block]) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(path, "writing parquet needs pyarrow. Install it with: pip install 'comln[parquet]'.") from None
    fields = [("file", pyarrow.string())] + [("label", pyarrow.string())] * labelled
    schema = pyarrow.schema([*fields, ("embedding", pyarrow.list_(pyarrow.float32(), features))])
    count = 0
    with closing(pyarrow.parquet.ParquetWriter(file, schema)) as writer:
        for embeddings, of_files, of_classes in blocks:
            flat = pyarrow.array(np.ascontiguousarray(embeddings, np.float32).ravel())
            rows = {"file": list(of_files), "label": list(of_classes)}
            columns = [pyarrow.array(rows[name], pyarrow.string()) for name, _ in fields]
            columns.append(pyarrow.FixedSizeListArray.from_arrays(flat, features))
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
            count += len(of_files)
    return count
