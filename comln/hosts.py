"""Several processes, on one machine or many, that train one run together; the first of them writes its files."""

__all__ = [
    "FailedElsewhere",
    "Hosts",
    "any_of",
    "from_first",
    "is_first",
    "is_joined",
    "join",
    "largest_of",
    "leave_at_once",
    "lost_the_others",
    "text_from_first",
]

import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

TEXT_BYTES = 1 << 16


class FailedElsewhere(RuntimeError):
    """Another process of this run failed, so that this one ends too; the message says where to look."""

    def __init__(self) -> None:
        super().__init__("another process of this run failed, and says why; this one ends with it.")


@dataclass(frozen=True)
class Hosts:
    """Where the processes of a run find each other, how many there are, and which of them this is."""

    coordinator: str
    processes: int
    process: int

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(f"--coordinator must be HOST:PORT, got {self.coordinator!r}.")
        if self.processes < 1:
            raise ValueError(f"--processes must be at least 1, got {self.processes}.")
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"--process must be at least 0 and below --processes, got {self.process} of {self.processes}."
            )


def join(hosts: Hosts) -> None:
    """Wait for all processes. Must come before anything is computed.

    **Raises:** `ValueError` where they do not find each other.
    """
    # What watches for preemption takes SIGTERM for itself, and the run would go on.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(hosts.coordinator, hosts.processes, hosts.process)
    except RuntimeError as error:
        raise ValueError(
            f"Process {hosts.process} could not join the others at {hosts.coordinator} ({str(error).splitlines()[0]}). "
            "Start all processes, with the same --coordinator and --processes."
        ) from error


def is_joined() -> bool:
    """Whether this process still is one of several."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def from_first(tree: Any) -> Any:
    """Return the arrays that the first process passed, in every process; the others pass arrays of the same form."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    def told(x: Any) -> Any:
        if not isinstance(x, jax.Array | np.ndarray):
            return x
        # As bytes: what is sent is added to zeros, which would turn -0.0 into 0.0.
        content = np.frombuffer(np.asarray(x).tobytes(), np.uint8)
        received = np.asarray(multihost_utils.broadcast_one_to_all(content)).astype(np.uint8)
        return jnp.asarray(np.frombuffer(received.tobytes(), x.dtype).reshape(x.shape))

    return jax.tree.map(told, tree)


def text_from_first(text: str) -> str:
    """Return the text that the first process passed, cut to `TEXT_BYTES`, in every process."""
    content = np.zeros(TEXT_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode()[:TEXT_BYTES], np.uint8)
    content[: len(encoded)] = encoded
    return np.asarray(from_first(content)).tobytes().rstrip(b"\0").decode(errors="ignore")


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in any process, told to all of them."""
    return bool(largest_of(int(flag)))


def largest_of(number: int) -> int:
    """Return the largest number that any process passed, in every process."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.array([number], np.int32))))


def lost_the_others(error: BaseException) -> bool:
    """Whether an error is that this process can no longer reach the others."""
    # Some of its operations raise the one, and some a plain `ValueError` that names the library below.
    return is_joined() and (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error))


def leave_at_once(code: int) -> NoReturn:
    """End this process without waiting for the others, which an ordinary end does: they may never come."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
