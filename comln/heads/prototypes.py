"""Class prototypes: the mean embedding of each class (Snell et al., 2017)."""

__all__ = ["prototypes"]

import jax.numpy as jnp

from comln.typing import Array, Float


def prototypes(
    embeddings: Float[Array, "support feature"], labels: Float[Array, "support way"], mask: Float[Array, " support"]
) -> Float[Array, "way feature"]:
    r"""Return $c_n = \sum_m w_m y_{mn} \phi_m / \sum_m w_m y_{mn}$, or zero for a class without examples.

    >>> points, labels = jnp.array([[1.0], [3.0], [5.0]]), jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> prototypes(points, labels, jnp.ones(3)).tolist()
    [[2.0], [5.0]]
    """
    shares = mask[:, None] * labels
    totals = jnp.sum(shares, axis=0)
    return (shares.T @ embeddings) / jnp.where(totals > 0, totals, jnp.ones_like(totals))[:, None]
