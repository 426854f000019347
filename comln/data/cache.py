"""The user's cache: arrays that are made once and found again, whole or not at all."""

__all__ = ["cache_folder", "cached_arrays"]

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

logger = logging.getLogger("comln")
Arrays = Mapping[str, np.ndarray]


def cache_folder() -> Path:
    """Return the folder for cached data: `COMLN_CACHE_DIR` if set, else the operating system's place for it."""
    return Path(os.environ.get("COMLN_CACHE_DIR") or platformdirs.user_cache_dir("comln"))


def cached_arrays(folder: Path, make: Callable[[], Arrays]) -> tuple[Arrays, str]:
    """Return the arrays that `make` makes and their digest; found in `folder` where they were made before.

    They are written to a folder beside it and renamed, so that another process sees all of them or none. A folder that
    is incomplete or damaged is made again, with a warning; where nothing can be written, the arrays are only returned.
    """
    if folder.exists():
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("The cache in %s is damaged (%s). Building it again.", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
    arrays = make()
    try:
        return arrays, _write(folder, arrays)
    except OSError as error:
        logger.warning("The cache in %s cannot be written (%s). Working without it.", folder, error.strerror or error)
        return arrays, _digest(arrays)


def _read(folder: Path) -> tuple[Arrays, str]:
    manifest = json.loads((folder / "manifest.json").read_text())
    with (folder / "arrays.npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if _digest(arrays) != manifest["sha256"]:
        raise ValueError("its content does not match its digest")
    return arrays, manifest["sha256"]


def _write(folder: Path, arrays: Mapping[str, Any]) -> str:
    folder.parent.mkdir(parents=True, exist_ok=True)
    digest = _digest(arrays)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with (temporary / "arrays.npz").open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        (temporary / "manifest.json").write_text(json.dumps({"sha256": digest}) + "\n")
        try:
            temporary.rename(folder)
        except OSError:
            # Another process was first, with the same content.
            if not (folder / "manifest.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def _digest(arrays: Arrays) -> str:
    """Return a digest of the names, shapes, types and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
