"""Gradient descent that keeps every square-root-of-n-th state for the way back, and takes the steps between again."""

__all__ = ["CheckpointedANIL", "CheckpointedMAML", "checkpointed_descent"]

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Examples
from comln.heads import LinearHead
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, steps_taken
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.learners.whole_network import WholeNetwork
from comln.typing import Array, Float, PRNGKeyArray, Scalar


def checkpointed_descent(loss: Callable[[Any], Scalar], start: Any, step: float, steps: int) -> Any:
    r"""Return what `gradient_descent` does. Backward, only the states at the ends of $\sqrt n$ blocks were kept.

    Memory is $O(\sqrt n)$ states, for one more way forward (Chen et al., 2016).

    >>> import jax.numpy as jnp
    >>> float(checkpointed_descent(lambda x: x**2, jnp.array(1.0), 0.25, 5))
    0.03125
    """
    block = max(1, math.isqrt(steps))

    def descend(parameters: Any, count: int) -> Any:
        return jax.checkpoint(lambda start: gradient_descent(loss, start, step, count, InnerGradient.EXACT))(parameters)

    end, _ = jax.lax.scan(lambda parameters, _: (descend(parameters, block), None), start, length=steps // block)
    return descend(end, steps % block) if steps % block else end


class CheckpointedANIL(AbstractLearner):
    """`comln.learners.ANIL`, whose exact meta-gradient is found with checkpoints."""

    backbone: AbstractBackbone
    initial_weights: Float[Array, "way feature"]
    step: float
    steps: int
    query_smoothing: float = 0.0

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        head = checkpointed_descent(
            lambda head: mean_loss(head(support.inputs), support),
            LinearHead(self.initial_weights),
            self.step,
            self.steps,
        )
        return head, steps_taken(head, self.steps)


class CheckpointedMAML(AbstractLearner):
    """`comln.learners.MAML`, whose exact meta-gradient is found with checkpoints."""

    network: WholeNetwork
    step: float
    steps: int
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        start, fixed = self.network.split()
        adapted = checkpointed_descent(
            lambda weights: mean_loss(eqx.combine(weights, fixed)(support.inputs), support),
            start,
            self.step,
            self.steps,
        )
        return eqx.combine(adapted, fixed), steps_taken(adapted, self.steps)
