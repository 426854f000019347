"""Matrix products of the flow keep the full precision of their type, on every device and in both directions."""

__all__ = ["at_highest_precision"]

import functools
from collections.abc import Callable
from typing import Any

import jax


def at_highest_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, traced with the highest precision of matrix products (accelerators round by default).

    A reverse rule is traced long after the forward pass, and needs this as well.
    """

    @functools.wraps(function)
    def precise(*arguments: Any, **options: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*arguments, **options)

    return precise
