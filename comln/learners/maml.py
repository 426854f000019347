"""MAML: adapt a whole network by a few steps of gradient descent (Finn et al., 2017)."""

__all__ = ["MAML"]

import equinox as eqx

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Examples
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, refuse_other_ways, steps_taken
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.learners.whole_network import WholeNetwork
from comln.typing import PRNGKeyArray


class MAML(AbstractLearner):
    r"""Adapt all weights by steps $\theta \leftarrow \theta - \alpha \nabla L(\theta)$ on the support's mean loss.

    Where to start is learned by gradients through the steps. With `InnerGradient.FIRST_ORDER` it is first-order MAML.

    - `network`: from raw examples to logits.
    - `step`: $\alpha$. The authors' loss is the sum over $Nk$ examples divided by $k$: their 0.01 is $0.01 N$ here.
    - `steps`: how many; may be changed after training.
    - `inner_gradient`: whether meta-gradients go through the gradients of the steps.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    network: WholeNetwork
    step: float
    steps: int
    inner_gradient: InnerGradient = InnerGradient.EXACT
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    @classmethod
    def init(
        cls,
        network: AbstractBackbone,
        ways: int,
        key: PRNGKeyArray,
        step: float = 0.05,
        steps: int = 5,
        inner_gradient: InnerGradient = InnerGradient.EXACT,
        query_smoothing: float = 0.0,
    ) -> "MAML":
        """Return a learner that adapts `network` and a linear layer on top of it."""
        return cls(
            network=WholeNetwork.init(network, ways, key),
            step=step,
            steps=steps,
            inner_gradient=inner_gradient,
            query_smoothing=query_smoothing,
        )

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("MAML", self.network.ways, ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        start, fixed = self.network.split()
        adapted = gradient_descent(
            lambda weights: mean_loss(eqx.combine(weights, fixed)(support.inputs), support),
            start,
            self.step,
            self.steps,
            self.inner_gradient,
        )
        return eqx.combine(adapted, fixed), steps_taken(adapted, self.steps)
