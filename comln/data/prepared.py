"""Data sets in the form that training reads: one memory-mapped array for each split, and a manifest."""

__all__ = [
    "FORMAT",
    "Manifest",
    "PreparedData",
    "PreparedEmbeddings",
    "PreparedSplit",
    "content_digest",
    "default_folder",
    "load_prepared",
    "read_manifest",
]

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cattrs
import numpy as np

from comln.data.augmentation import LeeAugmentation
from comln.data.cache import cache_folder
from comln.data.data_error import DataError
from comln.data.input_form import Ink, InputForm
from comln.data.pixel_scaling import PixelScaling
from comln.data.source import Split

FORMAT = 1
"""Of the folder; one of another format is not read."""
converter = cattrs.Converter(forbid_extra_keys=True)


@dataclass(frozen=True)
class PreparedSplit:
    """What the manifest says of one split.

    - `classes`, `examples`: how many. `smallest`, `largest`: examples of the smallest and the largest class.
    - `bytes`: of the array's file. `list_sha256`: of the file with the classes.
    - `content_hash`: of everything in the split.
    """

    classes: int
    examples: int
    smallest: int
    largest: int
    bytes: int
    list_sha256: str
    content_hash: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds, and what it was made from.

    - `name`, `layout`: of the data set, and of the files it was made from. `settings`: what was chosen.
    - `example_shape`, `dtype`: of an example.
    - `mean`, `std`: by which each channel (R, G, B, or grey) of pixels in [0, 1] is to be normalised; empty for
      embeddings. `normalisation`: where they come from, "customary" for this data set, or "measured on train", which is
      "measured on test" where that is the only split.
    - `notes`: what was decided in reading, such as the order of channels.
    - `splits`: by name. `sources`: path, size and SHA-256 of the first MiB of each file that was read.
    - `remarks`: what is not as it should be and was let pass.
    """

    format: int
    name: str
    layout: str
    settings: dict[str, str]
    example_shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalisation: str
    notes: dict[str, str]
    splits: dict[str, PreparedSplit]
    sources: list[dict[str, Any]]
    remarks: list[str]


def default_folder(name: str) -> Path:
    """Return where `comln data prepare` puts a data set: in the user's cache, or in `COMLN_CACHE_DIR`."""
    return cache_folder() / name


def content_digest(class_names: Sequence[str], class_of: np.ndarray, example_shape: Sequence[int], dtype: str) -> Any:
    """Return a SHA-256 that has taken in all of a split but its examples, whose bytes follow in order."""
    head = {"classes": list(class_names), "example_shape": list(example_shape), "dtype": dtype}
    digest = hashlib.sha256(json.dumps(head).encode())
    digest.update(np.ascontiguousarray(class_of, np.int64).tobytes())
    return digest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a prepared folder.

    **Raises:** `DataError` where there is none, or one that this version does not read.
    """
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise DataError(path, "it was written by another version of comln. Run `comln data prepare` again.")
        return converter.structure(content, Manifest)
    except FileNotFoundError:
        raise DataError(folder, "no prepared data set here. Make it with `comln data prepare`.") from None
    except DataError:
        raise
    except Exception as error:
        raise DataError(path, "it is damaged. Remove it. Run `comln data prepare` again.") from error


def load_prepared(folder: Path) -> dict[str, Split]:
    """Return the splits of a prepared folder. Examples stay on the disk: they are read as they are indexed.

    **Raises:** `DataError` where the folder is incomplete or damaged.
    """
    manifest = read_manifest(folder)
    return {name: _split(folder, name, manifest, split) for name, split in manifest.splits.items()}


def _split(folder: Path, name: str, manifest: Manifest, split: PreparedSplit) -> Split:
    path, list_path = folder / f"{name}.npy", folder / f"{name}.json"
    again = "it is damaged. Run `comln data prepare` again."
    try:
        content = list_path.read_bytes()
        if hashlib.sha256(content).hexdigest() != split.list_sha256:
            raise DataError(list_path, again)
        if path.stat().st_size != split.bytes:
            raise DataError(path, f"it has {path.stat().st_size} bytes instead of {split.bytes}: {again}")
        examples = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(Path(error.filename), "it is missing. Run `comln data prepare` again.") from None
    except (ValueError, EOFError) as error:
        raise error if isinstance(error, DataError) else DataError(path, again) from error
    listed = json.loads(content)
    if examples.shape != (split.examples, *manifest.example_shape) or examples.dtype != np.dtype(manifest.dtype):
        raise DataError(path, again)
    return Split(
        class_names=tuple(listed["classes"]),
        examples=examples,
        class_of=np.array(listed["class_of"], np.int64),
        group_of=np.arange(split.examples),
        content_hash=split.content_hash,
        scaling=PixelScaling(manifest.mean, manifest.std) if manifest.mean else None,
    )


@dataclass(frozen=True)
class PreparedData:
    """Images that `comln data prepare` has prepared.

    - `image_size`, `channels`: what the network is built for.
    - `padding`: frame of the random crop, in pixels, of the training images' augmentation; `None` for none.
    """

    name: str
    """of the data set"""
    folder: Path | None = None
    """where `comln data prepare` put it, if not in the user's cache"""
    image_size: int = 84
    """pixels a side"""
    channels: int = 3
    """3 for colours, 1 for grey"""
    padding: int | None = 8
    """frame of the random crop that training images are varied by, with colours and a mirror image; None: not varied"""

    @property
    def example_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.image_size, self.image_size, self.channels

    def load(self) -> dict[str, Split]:
        """Return the splits.

        **Raises:** `DataError` where there are none, or of images of another shape.
        """
        splits = _load_checked(self.name, self.folder, self.example_shape)
        if self.padding is not None and "train" in splits:
            varied = dataclasses.replace(splits["train"], augmentation=LeeAugmentation(self.padding))
            splits["train"] = varied
        return splits

    def input_form(self) -> InputForm:
        """Return what the network expects of an image.

        **Raises:** `DataError` as `load`.
        """
        manifest = _checked_manifest(self.name, self.folder, self.example_shape)
        ink = Ink.BRIGHT if manifest.name == "omniglot" else Ink.NONE
        return InputForm(self.example_shape, manifest.mean, manifest.std, ink)


@dataclass(frozen=True)
class PreparedEmbeddings:
    """Embeddings that `comln data prepare` has prepared.

    - `features`: numbers of an embedding.
    """

    name: str
    """of the data set"""
    folder: Path | None = None
    """where `comln data prepare` put it, if not in the user's cache"""
    features: int = 640
    """numbers of an embedding"""

    @property
    def example_shape(self) -> tuple[int]:
        """The length of an embedding."""
        return (self.features,)

    def load(self) -> dict[str, Split]:
        """Return the splits.

        **Raises:** `DataError` where there are none, or of embeddings of another length.
        """
        return _load_checked(self.name, self.folder, self.example_shape)

    def input_form(self) -> InputForm:
        """Return what a learner expects of an embedding.

        **Raises:** `DataError` as `load`.
        """
        manifest = _checked_manifest(self.name, self.folder, self.example_shape)
        return InputForm(self.example_shape, normalise="l2" if manifest.notes.get("normalise") == "l2" else "none")


def _load_checked(name: str, folder: Path | None, example_shape: tuple[int, ...]) -> dict[str, Split]:
    _checked_manifest(name, folder, example_shape)
    return load_prepared(_place(name, folder))


def _place(name: str, folder: Path | None) -> Path:
    return default_folder(name) if folder is None else folder


def _checked_manifest(name: str, folder: Path | None, example_shape: tuple[int, ...]) -> Manifest:
    place = _place(name, folder)
    if not (place / "manifest.json").exists():
        out = "" if folder is None else f" --out {folder}"
        raise DataError(
            place,
            f"the data set {name} is not prepared. Run `comln data prepare {name} ROOT{out}`, ROOT being your files.",
        )
    manifest = read_manifest(place)
    found = manifest.example_shape
    if found != example_shape:
        raise DataError(place, f"its examples are of shape {found}, but the experiment is set for {example_shape}.")
    return manifest
