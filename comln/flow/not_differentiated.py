"""A guard against gradients that are silently zero."""

__all__ = ["not_differentiated"]

import functools
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero

from comln.typing import Array


def not_differentiated(array: Array, message: str) -> Array:
    """Return `array` as it is; asking for a derivative in it raises `ValueError(message)`.

    >>> jax.grad(lambda x: not_differentiated(x, "no derivative in x"))(1.0)
    Traceback (most recent call last):
    ValueError: no derivative in x
    """

    @jax.custom_jvp
    def guard(array: Array) -> Array:
        return array

    @functools.partial(guard.defjvp, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> Any:
        if not isinstance(tangents[0], SymbolicZero):
            raise ValueError(message)
        return primals[0], tangents[0]

    return guard(array)
