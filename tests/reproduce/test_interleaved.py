"""How often functions that take turns are called."""

import jax
import jax.numpy as jnp

from comln.reproduce.measure import interleaved

ONE = (jnp.ones(()),)


def test_each_is_called_five_times_at_least_and_a_slow_one_once():
    functions = {name: (jax.jit(function), ONE) for name, function in (("a", jnp.sin), ("b", jnp.cos))}
    assert all(measured.calls >= 5 for measured in interleaved(functions, seconds=0.0).values())
    assert all(measured.calls == 1 for measured in interleaved(functions, seconds=0.0, slow_call_s=0.0).values())


def test_nothing_is_called_more_often_than_allowed():
    measured = interleaved({"a": (jax.jit(jnp.sin), ONE)}, seconds=60.0, most_calls=7)["a"]
    assert measured.calls == 7 and measured.quartiles_ms[0] <= measured.median_ms <= measured.quartiles_ms[1]
