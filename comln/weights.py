"""Weights in one file to hand on: safetensors, with what they belong to in the file's metadata."""

__all__ = ["WeightsError", "read_metadata", "read_weights", "write_weights"]

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from comln.checkpoint import array_form, named_arrays, precision_remedy, with_arrays

Tree = TypeVar("Tree")


class WeightsError(ValueError):
    """A file does not hold the weights that it should; the message says what to do."""


def write_weights(path: Path, tree: Any, metadata: Mapping[str, str]) -> None:
    """Write the arrays of a tree by their dotted paths, whole or not at all."""
    from safetensors.numpy import save_file

    arrays = {name: np.array(leaf, order="C") for name, leaf in named_arrays(tree).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(arrays, temporary, metadata=dict(metadata))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a file.

    **Raises:** `WeightsError` where it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is no safetensors file, or damaged ({error}). Pass what `comln export` wrote."
        ) from error


def read_weights(path: Path, template: Tree) -> Tree:
    """Return `template` with its arrays replaced by those of the file.

    **Raises:** `WeightsError` where they have other names, shapes or types.
    """
    from safetensors import SafetensorError, safe_open

    expected = named_arrays(template)
    try:
        with safe_open(path, framework="numpy") as file:
            # Of the names first: nothing is read of a file that holds something else.
            if set(file.keys()) != expected.keys():
                odd = sorted(set(file.keys()) ^ expected.keys())
                raise WeightsError(f"{path} holds other arrays than its configuration says: {', '.join(odd[:3])}.")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged ({error}). Export it again.") from error
    for name, array in arrays.items():
        wanted = expected[name]
        if remedy := precision_remedy(array_form(array), array_form(wanted)):
            raise WeightsError(f"{path} was exported {remedy}")
        if array.shape != wanted.shape or array.dtype != wanted.dtype:
            raise WeightsError(
                f"{path}: {name} is {array.dtype}{list(array.shape)}, but its configuration says "
                f"{wanted.dtype}{list(wanted.shape)}. Export it again, with this version of comln and this precision."
            )
    return with_arrays(template, arrays)
