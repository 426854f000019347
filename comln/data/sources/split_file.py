"""A user's own list of which classes belong to which split."""

__all__ = ["read_split_file"]

from pathlib import Path

from comln.data.data_error import DataError
from comln.data.safe_path import read_json
from comln.data.sources.layout import SPLITS


def read_split_file(path: Path) -> dict[str, list[str]]:
    """Return the classes of train, val and test in a JSON file like `{"train": ["cat", ...], "test": [...]}`.

    **Raises:** `DataError` where it is anything else, lacks all splits, or names a class twice.
    """
    if not path.is_file():
        raise DataError(path, "there is no such file. Give the path of a JSON file with the classes of each split.")
    content = read_json(path)
    lists = isinstance(content, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()
    )
    if not isinstance(content, dict) or not lists or not content or not set(content) <= set(SPLITS):
        raise DataError(path, 'it should look like {"train": ["cat", ...], "val": [...], "test": [...]}.')
    seen: set[str] = set()
    for name in (name for names in content.values() for name in names):
        if name in seen:
            raise DataError(path, f"it names the class {name!r} twice; splits must share no class.")
        seen.add(name)
    return {split: content.get(split, []) for split in SPLITS}
