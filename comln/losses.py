r"""Losses of a linear head, as functions of one example's logits.

Everything that a gradient flow needs from a loss is its value, its gradient and its curvature *with respect to the
logits*; the embeddings enter only through the chain rule (Böhning, 1992). A loss is a value that is passed in
(`loss=CrossEntropy()`).
"""

__all__ = ["AbstractLoss", "CrossEntropy"]

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.typing import Array, Float


class AbstractLoss(eqx.Module):
    r"""A convex loss $\ell(\eta, y)$ of the logits $\eta = W\phi$ and the labels $y$, row by row."""

    @abc.abstractmethod
    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        r"""Return $\ell(\eta_m, y_m)$ for each row $m$."""

    @abc.abstractmethod
    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        r"""Return $\partial\ell / \partial\eta_m$ for each row $m$."""

    @abc.abstractmethod
    def curvature(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way way"]:
        r"""Return $\partial^2\ell / \partial\eta_m^2$, symmetric and positive semi-definite, for each row $m$."""


class CrossEntropy(AbstractLoss):
    r"""Softmax cross-entropy $\ell(\eta, y) = -\sum_n y_n \log p_n$ with $p = \mathrm{softmax}(\eta)$.

    The labels are distributions: one-hot, or smoothed. Gradient $p - y$ and curvature
    $\mathrm{diag}(p) - pp^\top$ are those of the paper's Lemma 1 (Böhning, 1992).

    **Example:** two classes, equal logits: the loss is $\log 2$, the gradient $\pm 1/2$, the curvature $\pm 1/4$.

    >>> loss, logits, labels = CrossEntropy(), jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])
    >>> loss.value(logits, labels).round(4).tolist()
    [0.6931]
    >>> loss.gradient(logits, labels).tolist(), loss.curvature(logits, labels).tolist()
    ([[-0.5, 0.5]], [[[0.25, -0.25], [-0.25, 0.25]]])
    """

    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        return -jnp.sum(labels * jax.nn.log_softmax(logits, axis=-1), axis=-1)

    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        # For labels that sum to one. A row that does not would break the flow's invariant 1ᵀs = 0.
        return jax.nn.softmax(logits, axis=-1) - labels

    def curvature(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way way"]:
        probs = jax.nn.softmax(logits, axis=-1)
        return jax.vmap(jnp.diag)(probs) - probs[:, :, None] * probs[:, None, :]
