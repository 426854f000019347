"""How many compiled programs a process holds."""

__all__ = ["MOST_MAPS", "forget_programs", "forget_programs_if_many"]

import gc
from pathlib import Path

import jax

MOST_MAPS = 20_000
"""Memory maps from which on programs are forgotten. A program takes a few; at 65,530 Linux ends the process."""


def forget_programs() -> None:
    """Let all compiled programs go, and the memory that they take."""
    jax.clear_caches()
    gc.collect()


def forget_programs_if_many() -> None:
    """Let them go if they are near to the limit of the operating system, or if it does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > MOST_MAPS:
        forget_programs()
