"""ProtoNet: classify by the nearest class mean (Snell et al., 2017)."""

__all__ = ["ProtoNet"]

import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead, prototypes
from comln.learners.base import AbstractLearner, AdaptationInfo, steps_taken
from comln.typing import PRNGKeyArray


class ProtoNet(AbstractLearner):
    r"""Logits $-\lVert\phi - c_n\rVert^2$, with $c_n$ the mean embedding of class $n$.

    Less $\lVert\phi\rVert^2$, which all classes share, that is the linear head $2c_n^\top\phi - \lVert c_n\rVert^2$.

    - `backbone`: the embedding network. Its outputs set the scale of the logits, so they are used without division.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    query_smoothing: float = 0.0

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        means = prototypes(support.inputs, support.labels, support.mask)
        head = LinearHead(2 * means, -jnp.sum(jnp.square(means), axis=1))
        return head, steps_taken(head, 0)
