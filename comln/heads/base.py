"""What a head is: it takes the embeddings of one task's examples to logits."""

__all__ = ["AbstractHead"]

import abc

import equinox as eqx

from comln.typing import Array, Float


class AbstractHead(eqx.Module):
    """A classifier of one task, ready to use."""

    @abc.abstractmethod
    def __call__(self, embeddings: Float[Array, "example ..."]) -> Float[Array, "example way"]:
        """Return the logits of each example."""
