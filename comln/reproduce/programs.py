"""How many compiled programs a process may hold."""

__all__ = ["MOST_MAPS", "forget_programs_if_many"]

import gc
from pathlib import Path

import jax

MOST_MAPS = 20_000
"""Memory maps from which on programs are forgotten. A program takes a few; at 65,530 Linux ends the process."""


def forget_programs_if_many() -> None:
    """Let all compiled programs go if they are near to the limit of the operating system, where it has one."""
    gc.collect()
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
