"""A whole network as the head of a task: for methods that adapt all of it."""

__all__ = ["WholeNetwork"]

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone, Normalisation
from comln.backbones.layers import BatchNorm
from comln.heads import AbstractHead, LinearHead
from comln.typing import Array, Float, PRNGKeyArray


class WholeNetwork(AbstractHead):
    """A network and a linear layer on top of it, from a task's raw examples to logits.

    Batch normalisation uses the statistics of the examples that it is called on, support and query apart, as the
    methods' authors did: a prediction depends on the other examples of the call, padding among them.

    - `network`: the embedding network, of which only this task's examples are seen.
    - `linear`: the last layer.
    """

    network: AbstractBackbone
    linear: LinearHead

    @classmethod
    def init(cls, network: AbstractBackbone, ways: int, key: PRNGKeyArray) -> "WholeNetwork":
        r"""Return a network whose last layer has weights from $N(0, 1/d)$ and biases of zero."""
        size = network.embedding_size
        weights = jax.random.normal(key, (ways, size)) / jnp.sqrt(size)
        return cls(network, LinearHead(weights, jnp.zeros(ways)))

    @property
    def ways(self) -> int:
        """The number of classes."""
        return len(self.linear.weights)

    def __call__(self, embeddings: Float[Array, "example ..."]) -> Float[Array, "example way"]:
        statistics = self.network.initial_statistics()
        return self.linear(self.network(embeddings, statistics, Normalisation.BATCH)[0])

    def split(self) -> tuple["WholeNetwork", "WholeNetwork"]:
        """Return what a task adapts and what it does not; `equinox.combine` puts them together.

        Scale and shift of the normalisation are learned over tasks and not adapted, as by MAML's authors.
        """

        def is_norm(node: object) -> bool:
            return isinstance(node, BatchNorm)

        adapted = jax.tree.map(lambda node: not is_norm(node) and eqx.is_inexact_array(node), self, is_leaf=is_norm)
        return eqx.partition(self, adapted)
