"""A linear classifier without bias (a bias is a constant feature)."""

__all__ = ["LinearHead"]

import equinox as eqx

from comln.typing import Array, Float


class LinearHead(eqx.Module):
    r"""Logits $W\phi$.

    - `weights`: $W$, shape `(way, feature)`.

    >>> import jax.numpy as jnp
    >>> LinearHead(jnp.array([[1.0, 0.0], [0.0, 2.0]]))(jnp.array([[3.0, 4.0]])).tolist()
    [[3.0, 8.0]]
    """

    weights: Float[Array, "way feature"]

    def __call__(self, embeddings: Float[Array, "example feature"]) -> Float[Array, "example way"]:
        """Return the logits of each example."""
        return embeddings @ self.weights.T
