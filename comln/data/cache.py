"""The user's cache: arrays that are made once and found again, whole or not at all."""

__all__ = ["cache_folder", "cached_arrays"]

import hashlib
import io
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


def cached_arrays(
    folder: Path, make: Callable[[], Arrays], made_with: Mapping[str, str] | None = None
) -> tuple[Arrays, str]:
    """Return the arrays that `make` makes and their digest; found in `folder` where they were made before.

    They are written to a folder beside it and renamed, so that another process sees all of them or none. A folder that
    is incomplete or damaged is made again, with a warning; where nothing can be written, the arrays are only returned.

    - `made_with`: noted in the manifest for its reader, such as versions of libraries.
    """
    if folder.exists():
        try:
            return _read(folder)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("The cache in %s is damaged (%s). Building it again.", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
    arrays = make()
    try:
        return arrays, _write(folder, arrays, made_with or {})
    except OSError as error:
        logger.warning("The cache in %s cannot be written (%s). Working without it.", folder, error.strerror or error)
        return arrays, _digest(arrays)


def _read(folder: Path) -> tuple[Arrays, str]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    content = (folder / "arrays.npz").read_bytes()
    # Before anything is parsed: a damaged archive can fail in many ways, or ask for any amount of memory.
    if len(content) != manifest["bytes"]:
        raise ValueError(f"it has {len(content)} bytes instead of {manifest['bytes']}")
    if hashlib.sha256(content).hexdigest() != manifest["file_sha256"]:
        raise ValueError("its content does not match its digest")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if _digest(arrays) != manifest["sha256"]:
        raise ValueError("its manifest does not match its content")
    return arrays, manifest["sha256"]


def _write(folder: Path, arrays: Mapping[str, Any], made_with: Mapping[str, str]) -> str:
    digest, buffer = _digest(arrays), io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    manifest = {
        "sha256": digest,
        "bytes": len(content),
        "file_sha256": hashlib.sha256(content).hexdigest(),
        "made_with": dict(made_with),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_through(temporary / "arrays.npz", content)
        _write_through(temporary / "manifest.json", json.dumps(manifest, indent=1).encode() + b"\n")
        try:
            temporary.rename(folder)
        except OSError:
            # Another process was first, with the same content.
            if not (folder / "manifest.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return digest


def _write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk: else a power cut may keep the rename and lose the content."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(arrays: Arrays) -> str:
    """Return a digest of the names, shapes, types and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()
