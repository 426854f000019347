"""Where the examples that tasks are drawn from are kept: on the host, or on the device, as the bytes that they are."""

__all__ = ["Residence", "have_room", "place"]

import enum
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from comln import hosts
from comln.data.source import Split
from comln.devices import replicate
from comln.typing import Array

SHARE = 0.25
"""Of a device's memory that examples may take, unless they are asked to be there."""


class Residence(enum.StrEnum):
    """Where examples are kept.

    - `AUTO`: on the device, if it is an accelerator of which they take at most a quarter of the memory.
    - `DEVICE`: on the device, and whole on each of several.
    - `HOST`: on the host, which gathers those of each update; a memory map stays on the disk.
    """

    AUTO = "auto"
    DEVICE = "device"
    HOST = "host"


def place(splits: Sequence[Split], residence: Residence, mesh: Mesh | None) -> Callable[[Split], Array | None]:
    """Put the examples of some splits where they are to be, each of them once; return what finds them there.

    They keep their type: bytes stay bytes. Of several processes, all do it or none.

    - `mesh`: the devices, if there are several.
    - returns: a function of a split to its examples on the device, or to `None` where they stay on the host.

    **Example:** a processor's memory is the host's, so that `AUTO` leaves examples where they are.

    >>> two = np.zeros((2, 4, 4, 1), np.uint8)
    >>> split = Split(("a",), two, np.zeros(2, int), np.arange(2), "some hash")
    >>> place([split], Residence.HOST, None)(split) is None
    True
    >>> place([split, split], Residence.DEVICE, None)(split).dtype
    dtype('uint8')
    """
    distinct = {id(split.examples): split.examples for split in splits}
    nbytes = sum(examples.nbytes for examples in distinct.values())
    devices = [jax.local_devices()[0]] if mesh is None else mesh.local_devices
    on_device = residence is Residence.DEVICE or (residence is Residence.AUTO and have_room(devices, nbytes))
    # Processes with other programs than each other's would wait for each other for ever.
    on_device = not hosts.any_of(not on_device)
    placed = {name: _put(examples, mesh) for name, examples in distinct.items()} if on_device else {}
    return lambda split: placed.get(id(split.examples))


def have_room(devices: Sequence[Any], nbytes: int) -> bool:
    """Whether accelerators have room for so many bytes of examples; the memory of a processor is the host's."""
    limits = [(device.memory_stats() or {}).get("bytes_limit", 0) for device in devices if device.platform != "cpu"]
    return len(limits) == len(devices) and nbytes <= SHARE * min(limits)


def _put(examples: np.ndarray, mesh: Mesh | None) -> Array:
    return jax.device_put(np.asarray(examples)) if mesh is None else replicate(examples, mesh)
