"""Save and restore the state of a run: atomically, without pickle."""

__all__ = ["CheckpointError", "Checkpoints"]

import contextlib
import json
import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

KEEP = 2
State = TypeVar("State")
logger = logging.getLogger("comln")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message says which, and what to do."""


class Checkpoints:
    """The checkpoints in one folder, newest last. The newest `KEEP` are kept.

    A checkpoint is written under another name, flushed to the disk and renamed, so that it is whole or not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint, in order."""
        found = (re.fullmatch(r"step-(\d+)\.npz", path.name) for path in self.folder.glob("step-*.npz"))
        return sorted(int(match[1]) for match in found if match)

    def save(self, step: int, state: Any, metadata: dict[str, Any]) -> None:
        """Write the arrays of `state` and a JSON-able `metadata`; drop the oldest checkpoints."""
        arrays: dict[str, Any] = {path: np.asarray(leaf) for path, leaf in _named_arrays(state)}
        arrays["metadata"] = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
        temporary = self.folder / f".step-{step}.{os.getpid()}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path(step))
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self.folder}: {error.strerror or error}. Free "
                "space or choose another folder with --out; the last good checkpoint is unharmed."
            ) from error
        for old in self.steps()[:-KEEP]:
            self._path(old).unlink(missing_ok=True)

    def restore_newest(self, template: State) -> tuple[State, dict[str, Any]] | None:
        """Return the newest state that can be read, in the form of `template`, and its metadata, or `None` without one.

        A damaged checkpoint is passed over for the one before it, with a warning.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restore(step, template)
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                logger.warning(
                    "The checkpoint of step %d is damaged (%s). Going back to the one before it.", step, error
                )
        if steps:
            raise CheckpointError(f"No checkpoint in {self.folder} can be read. Train again with another --out.")
        return None

    def _restore(self, step: int, template: State) -> tuple[State, dict[str, Any]]:
        with self._path(step).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        metadata = json.loads(stored.pop("metadata").tobytes())
        expected = dict(_named_arrays(template))
        if expected.keys() != stored.keys():
            raise ValueError(f"it holds other arrays than this run: {sorted(expected.keys() ^ stored.keys())[:3]}")
        for name, leaf in expected.items():
            if stored[name].shape != leaf.shape or stored[name].dtype != leaf.dtype:
                raise ValueError(f"{name} has shape {stored[name].shape}, this run has {leaf.shape}")
        leaves, structure = jax.tree.flatten(template)
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(template)]
        restored = [
            jnp.asarray(stored[name]) if eqx.is_array(leaf) else leaf for name, leaf in zip(names, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, restored), metadata

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.npz"


def _named_arrays(tree: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves if eqx.is_array(leaf)]
