"""Several processes, on one machine or many, that train one run together; the first of them writes its files."""

__all__ = ["Hosts", "any_of", "from_first", "is_first", "join", "text_from_first"]

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

TEXT_BYTES = 1 << 16


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
    try:
        jax.distributed.initialize(hosts.coordinator, hosts.processes, hosts.process)
    except RuntimeError as error:
        raise ValueError(
            f"Process {hosts.process} could not join the others at {hosts.coordinator} ({str(error).splitlines()[0]}). "
            "Start all processes, with the same --coordinator and --processes."
        ) from error


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
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array([flag]))))
