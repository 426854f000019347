"""Splits in parquet files, as image and embedding data sets are shared, with the optional library pyarrow."""

__all__ = ["batches", "embedding_batches", "parquet_image_split"]

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.data_error import DataError
from comln.data.safe_image import decode_image
from comln.data.sources.arrays import whole_numbers
from comln.data.sources.raw_split import ROWS_AT_ONCE, RawSplit, index_classes

HIGHEST_RATIO = 100
RATIO_FREE = 1 << 28
LONGEST_TEXT = 4096
"""Bytes of a label."""
LARGEST_PICTURE = 1 << 24
"""Bytes of a picture's file."""
NUMBER = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a number, by the name that parquet has for its type."""


def open_parquet(path: Path) -> Any:
    """Return an open parquet file.

    **Raises:** `DataError` where it is none or claims far more than it holds, and where pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(path, "reading parquet needs pyarrow. Install it with: pip install 'comln[parquet]'.") from None
    try:
        schema = pyarrow.parquet.read_schema(path)
        texts = [name for field in schema for name in _texts(field)]
        # Texts and pictures stay in a dictionary: a thousand rows may refer to the same large one.
        file = pyarrow.parquet.ParquetFile(path, read_dictionary=texts)
        claimed = sum(_claimed(file.metadata.row_group(i)) for i in range(file.metadata.num_row_groups))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(path, f"it is not a readable parquet file ({error}). Get it again.") from error
    if claimed > max(RATIO_FREE, HIGHEST_RATIO * path.stat().st_size):
        raise DataError(path, f"it is refused: it claims {claimed} bytes, as a decompression bomb does.")
    return file


def _texts(field: Any) -> list[str]:
    """Return the paths of the columns of texts or bytes in a field, which may have parts."""
    import pyarrow

    if pyarrow.types.is_struct(field.type):
        return [f"{field.name}.{name}" for part in field.type.fields for name in _texts(part)]
    return [field.name] if _is_text(field.type) else []


def _is_text(kind: Any) -> bool:
    import pyarrow

    return kind in (pyarrow.string(), pyarrow.binary(), pyarrow.large_string(), pyarrow.large_binary())


def _is_plain(kind: Any, parts: bool = True) -> bool:
    """Whether a column is of numbers, of texts, of lists of numbers, or of parts that are: none else stays small.

    Bytes of a fixed length, and texts in lists, would be copied for each row that refers to them.
    """
    import pyarrow

    types = pyarrow.types
    if parts and types.is_struct(kind):
        return all(_is_plain(part.type, parts=False) for part in kind.fields)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_dictionary(kind):
        value = kind.value_type
        return types.is_primitive(value) or (types.is_dictionary(kind) and _is_text(value))
    return types.is_primitive(kind) or types.is_null(kind) or _is_text(kind)


def _claimed(rows: Any) -> int:
    """Return how many bytes a group of rows has unpacked: repeated numbers take less in the file than they say."""
    columns = [rows.column(i) for i in range(rows.num_columns)]
    numbers = sum(NUMBER.get(column.physical_type, 0) * column.num_values for column in columns)
    return max(rows.total_byte_size, numbers)


def batches(path: Path, columns: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield the rows of some columns of numbers, lists of them and short texts, a few hundred at a time.

    **Raises:** `DataError` where a column is not there, a text is long, or the file is damaged.
    """
    for batch in _record_batches(path, columns):
        import pyarrow  # after the call that says so where it is not installed

        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pyarrow.types.is_struct(column.type):
                raise DataError(path, f"its column {name} has parts instead of numbers or texts.")
            if isinstance(column, pyarrow.DictionaryArray) and _longest(column.dictionary) > LONGEST_TEXT:
                raise DataError(path, f"it is refused: its column {name} has texts of more than {LONGEST_TEXT} bytes.")
        yield batch.to_pydict()


def _record_batches(path: Path, columns: list[str]) -> Iterator[Any]:
    file = open_parquet(path)
    import pyarrow  # after the call that says so where it is not installed

    missing = set(columns) - set(file.schema_arrow.names)
    if missing:
        raise DataError(path, f"it lacks the columns {sorted(missing)}; it has {file.schema_arrow.names}.")
    for name in columns:
        if not _is_plain(kind := file.schema_arrow.field(name).type):
            raise DataError(path, f"it is refused: its column {name} is of the type {str(kind)[:200]}.")
    try:
        yield from file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(path, f"it is damaged ({error}). Get it again.") from error


def parquet_names(path: Path) -> list[str] | None:
    """Return the names of the classes that the file's metadata gives, in the order of their numbers, if it does."""
    metadata = open_parquet(path).schema_arrow.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features["label"]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def parquet_image_split(paths: tuple[Path, ...], split: str, size: int) -> RawSplit:
    """Return a split of files with the columns `image` (pictures as bytes) and `label` (numbers)."""
    labels = np.concatenate(
        [whole_numbers(path, batch["label"]) for path in paths for batch in batches(path, ["label"])]
        or [np.empty(0, np.int64)]
    )
    names = parquet_names(paths[0])
    if names is not None and (labels.size and not 0 <= labels.min() <= labels.max() < len(names)):
        raise DataError(paths[0], f"a label is not one of its {len(names)} class names.")
    if names is None:
        numbers, class_of = np.unique(labels, return_inverse=True)
        class_names, class_of = tuple(f"{split} {number}" for number in numbers.tolist()), class_of.astype(np.int64)
    else:
        class_names, class_of = index_classes([names[label] for label in labels.tolist()])
    return RawSplit(
        class_names,
        class_of,
        (size, size, 3),
        np.dtype(np.uint8),
        partial(_images, paths, size),
        paths,
        named=names is not None,
        notes={"channel_order": "rgb", "resize": f"whole picture to {size} x {size}, where it is not of that size"},
    )


def _images(paths: tuple[Path, ...], size: int) -> Iterator[np.ndarray]:
    for path in paths:
        for batch in _record_batches(path, ["image"]):
            yield np.stack([decode_image(content, str(path), size) for content in _contents(path, batch.column(0))])


def _contents(path: Path, images: Any) -> Iterator[bytes]:
    """Yield the bytes of each picture, which are a column of their own or a part of one."""
    import pyarrow

    if pyarrow.types.is_struct(images.type) and images.type.get_field_index("bytes") >= 0:
        images = images.field("bytes")
    if isinstance(images, pyarrow.DictionaryArray) and _longest(images.dictionary) > LARGEST_PICTURE:
        raise DataError(path, f"it is refused: a picture in it has more than {LARGEST_PICTURE >> 20} MiB.")
    for image in images:
        content = image.as_py()
        if not isinstance(content, bytes):
            raise DataError(path, "its column image does not hold pictures as bytes.")
        yield content


def _longest(texts: Any) -> int:
    """Return how many bytes the longest of some texts has."""
    import pyarrow.compute

    lengths = pyarrow.compute.call_function("binary_length", [texts]).to_pylist()
    return max((length or 0 for length in lengths), default=0)


def embedding_batches(path: Path) -> Iterator[np.ndarray]:
    """Yield the column `embedding`, lists of numbers, as float32 of shape `(example, feature)`, some rows at a time.

    **Raises:** `DataError` where they are not lists of numbers of one length.
    """
    for batch in batches(path, ["embedding"]):
        try:
            part = np.array(batch["embedding"], np.float32)
        except (ValueError, TypeError):
            part = np.empty(0)
        if part.ndim != 2:
            raise DataError(path, "its column embedding does not hold lists of numbers of one length.")
        yield part
