"""A linear classifier."""

__all__ = ["LinearHead", "append_one"]

import jax.numpy as jnp

from comln.heads.base import AbstractHead
from comln.typing import Array, Float


class LinearHead(AbstractHead):
    r"""Logits $W\phi + b$.

    - `weights`: $W$, shape `(way, feature)`.
    - `bias`: $b$, shape `(way,)`, or `None` for none.

    >>> LinearHead(jnp.array([[1.0, 0.0], [0.0, 2.0]]))(jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 8.0]]
    >>> LinearHead(jnp.eye(2), jnp.array([0.0, 10.0]))(jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 14.0]]
    """

    weights: Float[Array, "way feature"]
    bias: Float[Array, " way"] | None = None

    def __call__(self, embeddings: Float[Array, "example feature"]) -> Float[Array, "example way"]:
        """Return the logits of each example."""
        logits = embeddings @ self.weights.T
        return logits if self.bias is None else logits + self.bias[None, :]


def append_one(embeddings: Float[Array, "example feature"]) -> Float[Array, "example feature_and_one"]:
    """Return the embeddings with a last feature that is one: the weight of that feature is a bias.

    >>> append_one(jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 4.0, 1.0]]
    """
    return jnp.concatenate([embeddings, jnp.ones((len(embeddings), 1), embeddings.dtype)], axis=1)
