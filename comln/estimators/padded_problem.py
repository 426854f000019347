"""The arrays of a problem, padded so that problems of nearly one size share compiled code."""

__all__ = ["PaddedProblem", "Traced", "in_precision_of", "padded_problem"]

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.estimators.buckets import bucket, padded
from comln.typing import Array, Float


class Traced(NamedTuple):
    """A `PaddedProblem` inside compiled code."""

    start: Float[Array, "way feature"]
    examples: Float[Array, "example feature"]
    labels: Float[Array, "example way"]
    weights: Float[Array, " example"]


class PaddedProblem(NamedTuple):
    """A problem in coordinates, padded: what is not there has weight zero, is zero, or is `CLOSED`.

    A tall one has at least as many rows of `examples` as columns, so that `comln.gradient_flow` follows it in the rows
    of the weights, whatever the padding.
    """

    start: np.ndarray
    examples: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def traced(self) -> Traced:
        """Return the same arrays as those of JAX."""
        return Traced(*map(jnp.asarray, self))


def padded_problem(
    examples: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    start: tuple[np.ndarray, np.ndarray] | None,
    intercept: bool,
    closed: float,
    dtype: np.dtype,
    tall: bool = True,
) -> PaddedProblem:
    """Return a problem padded to its buckets; with an `intercept`, a feature that is one stands first.

    - `start`: weights and intercept that the flow begins at, `None` for zeros.
    - `closed`: the label of a way that is not there.
    - `tall`: whether there must be at least as many rows as columns.
    """
    count, size = examples.shape
    ways = labels.shape[1]
    columns = bucket(size + intercept, least=8)
    rows = bucket(count, least=16)
    if tall:
        rows = max(rows, columns)
    table = np.zeros((rows, columns), dtype)
    table[:count, intercept : size + intercept] = examples
    table[:count, :intercept] = 1.0
    heads = np.zeros((bucket(ways, least=4), columns), dtype)
    if start is not None:
        heads[:ways, intercept : size + intercept], heads[:ways, :intercept] = start[0], start[1][:, None]
    marked = np.zeros((rows, len(heads)), dtype)
    marked[:count, :ways] = labels
    marked[:, ways:] = closed
    return PaddedProblem(heads, table, marked, padded(weights.astype(dtype), (rows,)))


def in_precision_of(dtype: np.dtype) -> AbstractContextManager[Any]:
    """Return a context in which arrays of this type keep it, whatever `jax_enable_x64` is outside of it."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()
