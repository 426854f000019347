"""Fixtures of the tests of the flow."""

from collections.abc import Callable, Iterator

import jax
import pytest

from comln.flow import lane_steps


@pytest.fixture
def store_of(monkeypatch) -> Iterator[Callable[..., None]]:
    """Return what sets how many steps are kept; no program that was compiled for another number is used again."""

    def set_sizes(**sizes: int) -> None:
        for name, size in sizes.items():
            monkeypatch.setattr(lane_steps, name, size)
        jax.clear_caches()

    yield set_sizes
    jax.clear_caches()
