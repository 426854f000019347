"""The one error of reading a user's data: which file, and what is wrong with it."""

__all__ = ["DataError"]

from pathlib import Path


class DataError(ValueError):
    """A file is not what it should be. The message names it, the reason and, where there is one, the remedy.

    >>> str(DataError(Path("train.pkl"), "it is empty."))
    'train.pkl: it is empty.'
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {' '.join(reason.split())}")
