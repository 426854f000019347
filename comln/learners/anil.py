"""ANIL: adapt a linear head by a few steps of gradient descent (Raghu et al., 2020)."""

__all__ = ["ANIL"]

import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, refuse_other_ways, steps_taken
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.typing import Array, Float, PRNGKeyArray


class ANIL(AbstractLearner):
    r"""Adapt a linear head by steps $W \leftarrow W - \alpha \nabla L(W)$ from a learned $W_0$.

    $L$ is the mean cross-entropy of the support. The embedding network and $W_0$ are learned by
    gradients through the steps and through the support embeddings. It is COMLN with Euler steps and a fixed horizon,
    $T = \alpha n$.

    - `backbone`: the embedding network.
    - `initial_weights`: $W_0$, shape `(way, feature)`.
    - `step`: $\alpha$. `steps`: $n$; may be changed after training.
    - `inner_gradient`: whether meta-gradients go through the gradients of the steps.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    initial_weights: Float[Array, "way feature"]
    step: float
    steps: int
    inner_gradient: InnerGradient = InnerGradient.EXACT
    query_smoothing: float = 0.0

    @classmethod
    def init(
        cls,
        backbone: AbstractBackbone,
        ways: int,
        key: PRNGKeyArray,
        step: float = 0.1,
        steps: int = 5,
        inner_gradient: InnerGradient = InnerGradient.EXACT,
        query_smoothing: float = 0.0,
    ) -> "ANIL":
        r"""Return a learner whose $W_0$ has entries from $N(0, 1/d)$."""
        size = backbone.embedding_size
        weights = jax.random.normal(key, (ways, size)) / jnp.sqrt(size)
        return cls(
            backbone=backbone,
            initial_weights=weights,
            step=step,
            steps=steps,
            inner_gradient=inner_gradient,
            query_smoothing=query_smoothing,
        )

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("ANIL", len(self.initial_weights), ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        head = gradient_descent(
            lambda head: mean_loss(head(support.inputs), support),
            LinearHead(self.initial_weights),
            self.step,
            self.steps,
            self.inner_gradient,
        )
        return head, steps_taken(head, self.steps)
