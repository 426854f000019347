r"""The cross-entropy where some ways are only padding.

Problems with different numbers of classes share compiled code if their arrays have the same number of ways. A way that
is not there must not take a share of the softmax, $p_n = e^{\eta_n} / \sum_{k\ \mathrm{open}} e^{\eta_k}$ for the open
ways and $p_n = 0$ for the others; then its residual is zero, its row of the weights never moves, and the others move as
if it did not exist.
"""

__all__ = ["CLOSED", "OpenWaysCrossEntropy"]

import jax.numpy as jnp

from comln.losses import AbstractLoss, CrossEntropy
from comln.typing import Array, Bool, Float

CLOSED = -1.0
"""The label, in every row, of a way that is not there."""


class OpenWaysCrossEntropy(AbstractLoss):
    r"""`comln.CrossEntropy` over the ways whose labels are not `CLOSED`.

    **Example:** two ways with equal logits, and a third that is not there, however large its logit.

    >>> loss, logits, labels = OpenWaysCrossEntropy(), jnp.array([[0.0, 0.0, 9.0]]), jnp.array([[1.0, 0.0, CLOSED]])
    >>> loss.value(logits, labels).round(4).tolist(), loss.gradient(logits, labels).tolist()
    ([0.6931], [[-0.5, 0.5, 0.0]])
    >>> loss.curvature_diagonal(logits, labels).tolist()
    [[0.5, 0.5, 0.0]]
    """

    @property
    def shift_invariant(self) -> bool:
        return True

    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        return CrossEntropy().value(*_open(logits, labels))

    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return CrossEntropy().gradient(*_open(logits, labels))

    def curvature_diagonal(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return CrossEntropy().curvature_diagonal(*_open(logits, labels))

    def accepts(self, labels: Float[Array, "example way"]) -> Bool[Array, "example way"]:
        return (labels >= 0) | (labels == CLOSED)


def _open(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the logits and labels that the cross-entropy of all ways takes to mean the same."""
    closed = labels == CLOSED
    # Finite, so that its product with a label of zero is zero.
    lowest = jnp.asarray(jnp.finfo(logits.dtype).min / 4, logits.dtype)
    return jnp.where(closed, lowest, logits), jnp.where(closed, jnp.zeros_like(labels), labels)
