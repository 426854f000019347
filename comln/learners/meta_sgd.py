"""Meta-SGD: MAML with a learned step size for every weight (Li et al., 2017)."""

__all__ = ["MetaSGD"]

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Examples
from comln.learners.base import (
    AbstractLearner,
    AdaptationInfo,
    ParameterGroup,
    mean_loss,
    refuse_other_ways,
    steps_taken,
)
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.learners.whole_network import WholeNetwork
from comln.typing import PRNGKeyArray


class MetaSGD(AbstractLearner):
    r"""Adapt all weights of a network by one step $\theta - \alpha \odot \nabla L(\theta)$, with $\alpha$ learned.

    - `network`: from raw examples to logits.
    - `step_sizes`: $\alpha$, a number of either sign for every weight that is adapted.
    - `steps`, `inner_gradient`, `query_smoothing`: as in `MAML`.
    """

    network: WholeNetwork
    step_sizes: WholeNetwork
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
        initial_step: float = 0.05,
        steps: int = 1,
        inner_gradient: InnerGradient = InnerGradient.EXACT,
        query_smoothing: float = 0.0,
    ) -> "MetaSGD":
        """Return a learner that adapts `network` and a linear layer, with all step sizes equal to `initial_step`."""
        whole = WholeNetwork.init(network, ways, key)
        step_sizes = jax.tree.map(lambda weights: jnp.full_like(weights, initial_step), whole.split()[0])
        return cls(
            network=whole,
            step_sizes=step_sizes,
            steps=steps,
            inner_gradient=inner_gradient,
            query_smoothing=query_smoothing,
        )

    def parameter_groups(self) -> Any:
        labels = super().parameter_groups()
        scales = jax.tree.map(lambda _: ParameterGroup.SCALE, labels.step_sizes)
        return eqx.tree_at(lambda learner: learner.step_sizes, labels, scales)

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("Meta-SGD", self.network.ways, ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        start, fixed = self.network.split()
        adapted = gradient_descent(
            lambda weights: mean_loss(eqx.combine(weights, fixed)(support.inputs), support),
            start,
            self.step_sizes,
            self.steps,
            self.inner_gradient,
        )
        return eqx.combine(adapted, fixed), steps_taken(adapted, self.steps)
