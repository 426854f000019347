"""A batch of problems as lanes of one loop."""

__all__ = ["add_lanes_by_vmap"]

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from comln.typing import Array


def add_lanes_by_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, with lanes as axis 0 of every argument and result, so that `jax.vmap` adds lanes to it."""

    @jax.custom_batching.custom_vmap
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    @call.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> Any:
        def merge(x: Array, is_batched: bool) -> Array:
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        def split(x: Array) -> Array:
            return x.reshape(size, x.shape[0] // size, *x.shape[1:])

        results = jax.tree.map(split, call(*jax.tree.map(merge, arguments, tuple(batched))))
        return results, jax.tree.map(lambda _: True, results)

    return call
