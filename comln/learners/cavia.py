"""CAVIA: adapt a few context numbers that a network takes beside its input (Zintgraf et al., 2019)."""

__all__ = ["CAVIA", "NetworkInContext"]

import jax.numpy as jnp

from comln.backbones import AbstractBackbone, FilmConv4, Identity
from comln.episode import Examples
from comln.heads import AbstractHead
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, refuse_other_ways, steps_taken
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.typing import Array, Float, PRNGKeyArray


class NetworkInContext(AbstractHead):
    """A network with the context of one task."""

    network: FilmConv4
    context: Float[Array, " context"]

    def __call__(self, embeddings: Float[Array, "example ..."]) -> Float[Array, "example way"]:
        return self.network.branch(self.network.trunk(embeddings), self.context)


class CAVIA(AbstractLearner):
    r"""Adapt a context by steps $c \leftarrow c - \alpha \nabla L(c)$ from zero; the network is shared by all tasks.

    $L$ is the support's mean loss. The network is learned by gradients through the steps.

    - `network`: from raw examples and a context to logits.
    - `step`: $\alpha$. `steps`: how many; may be changed after training.
    - `inner_gradient`: whether meta-gradients go through the gradients of the steps.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    network: FilmConv4
    step: float = 1.0
    steps: int = 2
    inner_gradient: InnerGradient = InnerGradient.EXACT
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("CAVIA", len(self.network.linear_bias), ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[NetworkInContext, AdaptationInfo]:
        hidden = self.network.trunk(support.inputs)
        context = gradient_descent(
            lambda context: mean_loss(self.network.branch(hidden, context), support),
            jnp.zeros(self.network.film_weights.shape[1], hidden.dtype),
            self.step,
            self.steps,
            self.inner_gradient,
        )
        return NetworkInContext(self.network, context), steps_taken(context, self.steps)
