"""Programs are kept as long as the operating system has room for them."""

import jax
import jax.numpy as jnp

from comln.reproduce import programs


def test_programs_are_forgotten_once_there_are_many(monkeypatch):
    traces = []

    @jax.jit
    def double(x):
        traces.append(1)
        return 2 * x

    for _ in range(2):
        double(jnp.ones(()))
        programs.forget_programs_if_many()
    assert len(traces) == 1
    monkeypatch.setattr(programs, "MOST_MAPS", 1)
    programs.forget_programs_if_many()
    double(jnp.ones(()))
    assert len(traces) == 2
