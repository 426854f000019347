"""Save and restore the state of a run: atomically, in the background, without pickle."""

__all__ = ["CheckpointError", "Checkpoints", "array_form", "named_arrays", "precision_remedy", "with_arrays"]

import contextlib
import gc
import json
import logging
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from orbax.checkpoint import CheckpointManager

KEEP = 2
PLACEHOLDER = "placeholder"
"""An array that every checkpoint holds: one without any array cannot be written."""
QUIET_S = 0.5
State = TypeVar("State")
logger = logging.getLogger("comln")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message says which, and what to do."""


class Checkpoints:
    """The checkpoints in one folder, newest last. The newest `KEEP` are kept, and the best.

    A checkpoint is a folder named by its step. It is written under another name in the background and renamed, so that
    it is whole or not there. It holds arrays by name, a checksum of each, and what else is to be remembered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._manager: CheckpointManager | None = None
        self._last: tuple[int, int | None] | None = None

    def steps(self) -> list[int]:
        """Return the steps of which there is a checkpoint, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())

    def save(self, step: int, state: Any, metadata: dict[str, Any], best: int | None = None) -> None:
        """Begin to write the arrays of `state` and a JSON-able `metadata`; drop old checkpoints, but not `best`.

        Checkpoints of this step and of later ones, left by an earlier attempt, are replaced. The checkpoint is there
        for certain when the next `save` or `finish` has returned; until then, nothing is dropped on account of it.

        **Raises:** `CheckpointError` where this checkpoint, or the one before it, cannot be written.
        """
        import orbax.checkpoint as ocp

        # Copies, so that nothing can change under the thread that writes.
        arrays = {name: np.array(leaf) for name, leaf in named_arrays(state).items()}
        arrays[PLACEHOLDER] = np.zeros(1, np.uint8)
        record = {
            "metadata": metadata,
            "checksums": {name: _checksum(array) for name, array in arrays.items()},
            "forms": {name: array_form(array) for name, array in arrays.items()},
        }
        record["checksum"] = _record_checksum(record)
        with self._reporting(step):
            manager = self._opened()
        with self._reporting(step if self._last is None else self._last[0]):
            manager.wait_until_finished()
        with self._reporting(step):
            # Which are dropped is decided by the last save that is finished: until this one is, its best is not there.
            # After a resume it is not known which is the best, and none is dropped yet.
            if self._last is not None:
                self._drop_old(manager, self._last[1])
            for old in self.steps():
                if old >= step:
                    manager.delete(old)
            parts = ocp.args.Composite(state=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record))
            manager.save(step, args=parts, force=True)
        self._last = (step, best)

    def finish(self) -> None:
        """Wait until everything is written, and drop what is old.

        **Raises:** `CheckpointError` where the last checkpoint could not be written.
        """
        if self._manager is None or self._last is None:
            return
        step, best = self._last
        with self._reporting(step):
            self._manager.wait_until_finished()
            self._drop_old(self._manager, best)
        self._close()

    def restore_newest(self, template: State) -> tuple[State, dict[str, Any]] | None:
        """Return the newest state that can be read, in the form of `template`, and its metadata, or `None` without one.

        A damaged checkpoint is passed over for the one before it, with a warning.
        """
        steps = self.steps()
        for step in reversed(steps):
            restored = self.restore(step, template)
            if restored is not None:
                return restored
        if steps:
            raise CheckpointError(f"No checkpoint in {self.folder} can be read. Train again with another --out.")
        return None

    def restore(self, step: int, template: State) -> tuple[State, dict[str, Any]] | None:
        """Return the state of a step and its metadata, or `None`, with a warning, where it is damaged or missing.

        **Raises:** `CheckpointError` where it holds arrays of other names, shapes or types than `template`, or is of an
        older version.
        """
        try:
            stored, record = self._read(step, named_arrays(template))
            damaged = [name for name, array in stored.items() if _checksum(array) != record["checksums"][name]]
            if damaged:
                raise ValueError(f"{damaged[0]} has another checksum")
            return with_arrays(template, stored), record["metadata"]
        except CheckpointError:
            raise
        except Exception as error:
            # A damaged file can surface as almost any exception of the libraries that parse it.
            reason = _reason(error)
        _clear_away_quietly()
        logger.warning("The checkpoint of step %d is damaged (%s); it is passed over.", step, reason)
        return None

    def _read(self, step: int, expected: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        import orbax.checkpoint as ocp

        # The record comes first: only what is known to be sound may say that a run is of another configuration. Then
        # the forms: an attempt to restore arrays of another form would print pages of traces.
        with contextlib.closing(self._new_manager(read_only=True)) as manager:
            record = manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            if not {"checksum", "forms"} <= record.keys():
                raise CheckpointError(
                    f"The checkpoint of step {step} in {self.folder} was written by an older version of comln; this "
                    "one does not read it. Run `comln export` of that version and use the file, or train again with "
                    "another --out."
                )
            if record["checksum"] != _record_checksum(record):
                raise ValueError("its record has another checksum")
            wanted = {name: array_form(x) for name, x in expected.items()}
            self._refuse_other_forms(step, record["forms"], wanted)
            found: Any = manager.item_metadata(step)
            if record["forms"] != {name: array_form(x) for name, x in found["state"].tree.items()}:
                raise ValueError("its arrays have other forms than its record says")
            blank: dict[str, np.ndarray] = {name: np.empty(x.shape, x.dtype) for name, x in expected.items()}
            blank[PLACEHOLDER] = np.empty(1, np.uint8)
            restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(blank)))
        stored = {name: array for name, array in restored["state"].items() if name != PLACEHOLDER}
        return stored, record

    def _refuse_other_forms(self, step: int, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        for name in sorted((found.keys() | wanted.keys()) - {PLACEHOLDER}):
            if found.get(name) != wanted.get(name):
                if remedy := precision_remedy(found.get(name), wanted.get(name)):
                    raise CheckpointError(f"The checkpoint of step {step} in {self.folder} is {remedy}")
                there, here = (
                    "nothing" if form is None else f"{form[0]}{form[1]}" for form in (found.get(name), wanted.get(name))
                )
                raise CheckpointError(
                    f"The checkpoint of step {step} in {self.folder} is of another configuration: {name} is {there} "
                    f"there, and {here} in this run. Resume with the command that started it, or choose another --out."
                )

    def _opened(self) -> "CheckpointManager":
        if self._manager is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = self._new_manager(read_only=False)
        return self._manager

    def _new_manager(self, read_only: bool) -> "CheckpointManager":
        import orbax.checkpoint as ocp

        # One process reads and writes, however many there are: the others must not be waited for.
        process = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(process, {process})
        handlers: Any = {
            "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            "record": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
        }
        with _without_remarks():
            options = ocp.CheckpointManagerOptions(
                create=False,
                read_only=read_only,
                cleanup_tmp_directories=not read_only,
                multiprocessing_options=alone,
            )
            return ocp.CheckpointManager(self.folder.absolute(), options=options, item_handlers=handlers)

    def _drop_old(self, manager: "CheckpointManager", best: int | None) -> None:
        for old in self.steps()[:-KEEP]:
            if old != best:
                manager.delete(old)

    @contextlib.contextmanager
    def _reporting(self, step: int) -> Iterator[None]:
        """Report what goes wrong in writing the checkpoint of `step` in one line."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            with contextlib.suppress(Exception):
                self._close()
            _clear_away_quietly()
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}. Free "
                "space or choose another folder with --out; the last good checkpoint is unharmed."
            ) from error

    def _close(self) -> None:
        manager, self._manager, self._last = self._manager, None, None
        if manager is not None:
            manager.close()


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Drop the warnings of a library that it reads only, as it is told to, and nothing graver."""
    absl = logging.getLogger("absl")

    def is_grave(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    absl.addFilter(is_grave)
    try:
        yield
    finally:
        absl.removeFilter(is_grave)


def _clear_away_quietly() -> None:
    """Wait until what a failed attempt left running has ended, without its complaints.

    A library's tasks can outlive its event loop, and print a page of traces each when they end: of an error that is
    reported in one line already.
    """
    last = time.monotonic()

    def heard(unraisable: Any) -> None:
        nonlocal last
        last = time.monotonic()

    hook, sys.unraisablehook = sys.unraisablehook, heard
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while time.monotonic() - last < QUIET_S:
                gc.collect()
                time.sleep(QUIET_S / 10)
    finally:
        sys.unraisablehook = hook


def named_arrays(tree: Any) -> dict[str, Any]:
    """Return the array leaves of a tree by their dotted paths.

    >>> list(named_arrays({"network": [jnp.zeros(2), 3.0], "step": jnp.ones(())}))
    ['network.0', 'step']
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves if eqx.is_array(leaf)}


def with_arrays(template: State, arrays: Mapping[str, np.ndarray]) -> State:
    """Return `template` with its array leaves replaced by those of their names."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    replaced = [jnp.asarray(arrays[_name(path)]) if eqx.is_array(leaf) else leaf for path, leaf in leaves]
    return jax.tree.unflatten(structure, replaced)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)


def _record_checksum(record: Mapping[str, Any]) -> int:
    """Return the checksum of all of a record but its checksum.

    >>> _record_checksum({"step": 1}) == _record_checksum({"step": 1, "checksum": 7})
    True
    """
    rest = {name: value for name, value in record.items() if name != "checksum"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def array_form(array: Any) -> list[Any]:
    """Return what two arrays must share to take each other's place, as JSON has it.

    >>> array_form(np.zeros((2, 3), np.float32))
    ['float32', [2, 3]]
    """
    return [np.dtype(array.dtype).name, [int(size) for size in array.shape]]


def precision_remedy(there: Sequence[Any] | None, here: Sequence[Any] | None) -> str:
    """Return what to do where two forms differ in precision alone, as the end of a sentence; empty if they do not.

    >>> precision_remedy(["float64", [2]], ["float32", [2]])
    'in double precision (float64). Set JAX_ENABLE_X64=1 in the environment.'
    >>> precision_remedy(["float32", [2]], ["float32", [3]])
    ''
    """
    if there is None or here is None or list(there[1]) != list(here[1]):
        return ""
    match there[0], here[0]:
        case ("float64", "float32") | ("int64", "int32"):
            return f"in double precision ({there[0]}). Set JAX_ENABLE_X64=1 in the environment."
        case ("float32", "float64") | ("int32", "int64"):
            return f"in single precision ({there[0]}). Unset JAX_ENABLE_X64 in the environment."
    return ""


def _reason(error: Exception) -> str:
    """Return the cause at the end of a chain of causes that a library's message tells in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return first.split(" [")[0].rsplit(": ", 1)[-1]
