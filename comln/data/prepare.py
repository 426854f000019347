"""Check a data set as the user has it, and write it in the form that training reads, block by block."""

__all__ = ["OnProgress", "Prepared", "check", "prepare"]

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comln.data.channel_statistics import ChannelStatistics
from comln.data.check import DuplicateFinder, count_rows, verify_classes, verify_counts
from comln.data.data_error import DataError
from comln.data.prepared import FORMAT, Manifest, PreparedSplit, content_digest, converter
from comln.data.sources.layout import AbstractSource, probe
from comln.data.sources.raw_split import RawSplit
from comln.data.split_writer import SplitWriter, beside, write_whole

HEAD = 1 << 20
OnProgress = Callable[[str, int, int], None]
"""Takes the split that is being read, how many of its examples are done, and how many there are."""


@dataclass(frozen=True)
class Prepared:
    """A data set that was checked, and prepared if that was asked for.

    - `manifest`: what was found. `kept`: the splits that had been prepared before.
    """

    manifest: Manifest
    kept: tuple[str, ...]


def check(source: AbstractSource, name: str, root: Path, allow_partial: bool, on_progress: OnProgress) -> Prepared:
    """Return what a data set holds, after reading all of it; nothing is written.

    - `name`: of the data set. `root`: the folder of the user's files.
    - `allow_partial`: be content with fewer splits, classes or examples than the data set has.

    **Raises:** `DataError` where anything is not as it should be.
    """
    return _survey(source, name, root, None, allow_partial, on_progress)


def prepare(
    source: AbstractSource, name: str, root: Path, folder: Path, allow_partial: bool, on_progress: OnProgress
) -> Prepared:
    """Check a data set and write it to a folder, as `comln.data.prepared` reads it.

    What the folder held before stays until everything new is read, checked and written beside it. Started again after
    an interruption, it keeps the splits that are done. Memory stays bounded by a block of some hundred examples.

    **Raises:** `DataError` as `check`, and where the folder holds somebody else's files; `OSError` where it cannot be
    written.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(folder, "it is a file. Choose a folder with --out.")
    _verify_ours(folder / "manifest.json")
    return _survey(source, name, root, folder, allow_partial, on_progress)


def _survey(
    source: AbstractSource, name: str, root: Path, folder: Path | None, allow_partial: bool, on_progress: OnProgress
) -> Prepared:
    found = probe(name, root, source.layouts(), allow_partial)
    splits = {split: found.layout.read(found.folder, split) for split in found.splits}
    remarks = verify_counts(root, splits, found.layout.expected, allow_partial) + verify_classes(root, splits)
    shapes = {split: (raw.example_shape, str(raw.dtype)) for split, raw in splits.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(root, f"the examples of its splits differ in shape: {shapes}.")
    made_with = {"format": FORMAT, "layout": found.layout.name, "settings": _settings(source)}
    writers = {
        split: SplitWriter(folder or Path(), split, raw, {**made_with, "sources": _stamp_all(raw.files, root)})
        for split, raw in splits.items()
    }
    kept = ()
    if folder is not None:
        for writer in writers.values():
            writer.verify_ours()
        kept = tuple(split for split, writer in writers.items() if writer.is_done())
        folder.mkdir(parents=True, exist_ok=True)
    duplicates, statistics, hashes = DuplicateFinder(), ChannelStatistics(), {}
    for split, raw in splits.items():
        blocks = writers[split].kept() if split in kept else count_rows(raw)
        if folder is not None and split not in kept:
            blocks = writers[split].write(blocks)
        watched = statistics if split == next(iter(splits)) and raw.dtype == np.uint8 else None
        # Closed at once, also where something fails: a half-written file goes.
        with closing(blocks):
            hashes[split] = _read(split, raw, blocks, duplicates, watched, on_progress)
    remarks += duplicates.verify(root)
    summaries = {split: _summary(raw, writers[split], hashes[split]) for split, raw in splits.items()}
    manifest = _manifest(source, name, found.layout.name, splits, summaries, statistics, remarks, root)
    if folder is not None:
        _put_in_place(folder, writers.values(), manifest)
    return Prepared(manifest, kept)


def _put_in_place(folder: Path, writers: Iterable[SplitWriter], manifest: Manifest) -> None:
    """Let the new splits take the places of the old ones; without a manifest in between, so that none are mixed."""
    path, waiting = folder / "manifest.json", [writer for writer in writers if not writer.is_in_place()]
    if waiting:
        path.unlink(missing_ok=True)
        for writer in waiting:
            writer.put_in_place()
    write_whole(path, json.dumps(converter.unstructure(manifest), indent=1).encode() + b"\n")
    shutil.rmtree(beside(folder), ignore_errors=True)


def _verify_ours(path: Path) -> None:
    """Raise `DataError` where a manifest is somebody else's, or damaged beyond telling."""
    try:
        ours = {"format", "layout", "splits", "sources"} <= json.loads(path.read_bytes()).keys()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError, AttributeError, RecursionError):
        ours = False
    if not ours:
        raise DataError(
            path.parent,
            f"it holds a {path.name} that comln did not write, or a damaged one. Choose another --out, or remove it.",
        )


def _read(
    split: str,
    raw: RawSplit,
    blocks: Iterable[np.ndarray],
    duplicates: DuplicateFinder,
    statistics: ChannelStatistics | None,
    on_progress: OnProgress,
) -> str:
    """Show each block to whoever wants to see it, and return the digest of the split."""
    digest, seen = content_digest(raw.class_names, raw.class_of, raw.example_shape, raw.dtype.str), 0
    for block in blocks:
        digest.update(np.ascontiguousarray(block).data)
        duplicates.add(split, block)
        if statistics is not None:
            statistics.add(block)
        seen += len(block)
        on_progress(split, seen, len(raw.class_of))
    return digest.hexdigest()


def _manifest(
    source: AbstractSource,
    name: str,
    layout: str,
    splits: Mapping[str, RawSplit],
    summaries: dict[str, PreparedSplit],
    statistics: ChannelStatistics,
    remarks: list[str],
    root: Path,
) -> Manifest:
    split, first = next(iter(splits.items()))
    mean, std, normalisation = (), (), ""
    if first.dtype == np.uint8:
        mean, std, normalisation = statistics.mean(), statistics.std(), f"measured on {split}"
        if (customary := source.normalisation) is not None:
            if statistics.looks_reversed(customary.mean):
                remarks = [*remarks, "the channels look exchanged: the means fit BGR, not RGB. See --channel-order."]
            mean, std, normalisation = customary.mean, customary.std, "customary"
    return Manifest(
        format=FORMAT,
        name=name,
        layout=layout,
        settings=_settings(source),
        example_shape=first.example_shape,
        dtype=first.dtype.str,
        mean=mean,
        std=std,
        normalisation=normalisation,
        notes=dict(first.notes),
        splits=summaries,
        sources=_describe_all([path for raw in splits.values() for path in raw.files], root),
        remarks=remarks,
    )


def _settings(source: AbstractSource) -> dict[str, str]:
    """Return what was chosen, as text."""
    return {name: str(value) for name, value in vars(source).items() if value is not None}


def _summary(raw: RawSplit, writer: SplitWriter, content_hash: str) -> PreparedSplit:
    sizes = np.bincount(raw.class_of)
    return PreparedSplit(
        classes=len(raw.class_names),
        examples=len(raw.class_of),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        bytes=writer.bytes,
        list_sha256=writer.list_sha256(),
        content_hash=content_hash,
    )


def _describe_all(paths: Iterable[Path], root: Path) -> list[dict[str, Any]]:
    return [_describe(path, root) for path in dict.fromkeys(paths)]


def _describe(path: Path, root: Path) -> dict[str, Any]:
    """Return what a file, or a folder of files, is, for the manifest: its size, and the digest of its beginning."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    if path.is_dir():
        files = _files_in(path)
        listing = json.dumps([(file, status.st_size) for file, status in files]).encode()
        size = sum(status.st_size for _, status in files)
        return {"path": name, "files": len(files), "bytes": size, "listing_sha256": hashlib.sha256(listing).hexdigest()}
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    return {"path": name, "bytes": path.stat().st_size, "head_sha256": head}


def _stamp_all(paths: Iterable[Path], root: Path) -> list[dict[str, Any]]:
    """Return what tells files from later ones of the same names: how they are described, and when they were written."""
    return [{**_describe(path, root), "modified": _modified(path)} for path in dict.fromkeys(paths)]


def _modified(path: Path) -> int | str:
    """Return the time of a file's last change in nanoseconds, or a digest of those of a folder's files."""
    if not path.is_dir():
        return path.stat().st_mtime_ns
    times = json.dumps([(file, status.st_mtime_ns) for file, status in _files_in(path)])
    return hashlib.sha256(times.encode()).hexdigest()


def _files_in(folder: Path) -> list[tuple[str, os.stat_result]]:
    """Return the path and the status of each file in a folder and in the folders in it, sorted."""
    found = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return sorted((path.relative_to(folder).as_posix(), path.stat()) for path in found if path.is_file())
