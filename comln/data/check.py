"""Is a data set what it should be: counts, classes that no two splits share, pictures that no two splits share."""

__all__ = ["DuplicateFinder", "count_rows", "verify_classes", "verify_counts"]

import hashlib
from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np

from comln.data.data_error import DataError
from comln.data.sources.layout import Expected
from comln.data.sources.raw_split import RawSplit

TOLERATED_SHARE = 0.001
"""ImageNet itself has a few pictures twice, under two classes; this share of the smaller split may be duplicates."""
DIGEST_BYTES = 8


def verify_counts(
    root: Path, splits: Mapping[str, RawSplit], expected: Mapping[str, Expected], allow_partial: bool
) -> list[str]:
    """Return what is missing, one line for each split, where `allow_partial` lets it pass.

    **Raises:** `DataError` where a split has no example, more than it should, or, unless `allow_partial`, fewer.
    """
    remarks = []
    for split, raw in splits.items():
        if not len(raw.class_of):
            raise DataError(root, f"the split {split!r} has no examples.")
        should = expected.get(split)
        if should is None:
            continue
        sizes = np.bincount(raw.class_of)
        found = f"{len(raw.class_names)} classes and {len(raw.class_of)} examples"
        wanted = f"{should.classes} classes" + (f" and {should.examples} examples" if should.examples else "")
        uneven = should.each is not None and not (sizes == should.each).all()
        if len(raw.class_names) > should.classes or len(raw.class_of) > (should.examples or np.inf):
            raise DataError(
                root,
                f"the split {split!r} should have {wanted}, but has {found}: it is another data set or split.",
            )
        if len(raw.class_names) < should.classes or len(raw.class_of) < (should.examples or 0) or uneven:
            each = f", {should.each} of each class" if should.each else ""
            remark = f"the split {split!r} should have {wanted}{each}, but has {found}"
            if not allow_partial:
                raise DataError(root, f"{remark}. Complete it, or take what is there with --allow-partial.")
            remarks.append(f"{remark}.")
    return remarks


def verify_classes(root: Path, splits: Mapping[str, RawSplit]) -> list[str]:
    """Return a remark where the classes have no names, so that this cannot be checked.

    **Raises:** `DataError` where two splits share a class.
    """
    owner: dict[str, str] = {}
    for split, raw in splits.items():
        for name in raw.class_names:
            if name in owner:
                raise DataError(
                    root,
                    f"the class {name!r} is in the splits {owner[name]!r} and {split!r}. A few-shot data set "
                    "must divide classes, not images: get one that does.",
                )
            owner[name] = split
    if len(splits) > 1 and not all(raw.named for raw in splits.values()):
        return ["classes have no names in these files: that no two splits share a class was not checked, only images."]
    return []


def count_rows(raw: RawSplit) -> Generator[np.ndarray, None, None]:
    """Yield the blocks of a split.

    **Raises:** `DataError` where they are of another type or shape than they should be, or not as many as the labels.
    """
    count = 0
    for block in raw.blocks():
        if block.dtype != raw.dtype or block.shape[1:] != raw.example_shape:
            wanted = f"{raw.dtype} of shape {raw.example_shape}"
            raise DataError(raw.files[0], f"example {count} is {block.dtype} of shape {block.shape[1:]}, not {wanted}.")
        count += len(block)
        yield block
    if count != len(raw.class_of):
        raise DataError(raw.files[0], f"{count} examples, but {len(raw.class_of)} labels: the two must be as many.")


class DuplicateFinder:
    """Finds examples that occur in two splits, by a digest of each: eight bytes an example are kept.

    >>> finder = DuplicateFinder()
    >>> finder.add("train", np.zeros((1, 2), np.uint8))
    >>> finder.add("test", np.array([[0, 0], [0, 1]], np.uint8))
    >>> finder.shared("train", "test")
    1
    """

    def __init__(self) -> None:
        self._digests: dict[str, list[np.ndarray]] = {}

    def add(self, split: str, examples: np.ndarray) -> None:
        """Take in some examples of a split."""
        digests = [hashlib.blake2b(example.tobytes(), digest_size=DIGEST_BYTES).digest() for example in examples]
        self._digests.setdefault(split, []).append(np.frombuffer(b"".join(digests), np.uint64))

    def shared(self, one: str, other: str) -> int:
        """Return how many examples of the smaller of two splits are in the larger one too."""
        small, large = sorted((np.concatenate(self._digests[split]) for split in (one, other)), key=len)
        return int(np.isin(small, large).sum())

    def verify(self, root: Path) -> list[str]:
        """Return a remark for every two splits that share a few examples.

        **Raises:** `DataError` where they share more than `TOLERATED_SHARE`.
        """
        remarks, splits = [], list(self._digests)
        for i, one in enumerate(splits):
            for other in splits[i + 1 :]:
                shared = self.shared(one, other)
                smaller = min(sum(map(len, self._digests[split])) for split in (one, other))
                remark = f"{shared} of {smaller} examples are the same in the splits {one!r} and {other!r}"
                if shared > TOLERATED_SHARE * smaller:
                    raise DataError(root, f"{remark}: they are not separate. Get a data set whose splits are.")
                if shared:
                    remarks.append(f"{remark}; as few as that are let pass.")
        return remarks
