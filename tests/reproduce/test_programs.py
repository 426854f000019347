"""Programs are kept as long as the operating system has room for them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from comln.reproduce import programs


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="This system does not tell how many there are.")
def test_programs_are_forgotten_once_there_are_many(monkeypatch):
    traces = []

    @jax.jit
    def double(x):
        traces.append(1)
        return 2 * x

    monkeypatch.setattr(programs, "MOST_MAPS", 10**9)
    for _ in range(2):
        double(jnp.ones(()))
        programs.forget_programs_if_many()
    assert len(traces) == 1
    monkeypatch.setattr(programs, "MOST_MAPS", 1)
    programs.forget_programs_if_many()
    double(jnp.ones(()))
    assert len(traces) == 2
