"""How far iMAML's meta-gradient is from the one through the steps that it has taken."""

__all__ = ["GradientError", "UnrolledIMAML", "gradient_error"]

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Episode, Examples
from comln.learners import IMAML
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, steps_taken
from comln.learners.whole_network import WholeNetwork
from comln.reproduce.checkpointing import checkpointed_descent
from comln.reproduce.meta_gradient_programs import whole_program
from comln.typing import PRNGKeyArray, Scalar


class UnrolledIMAML(AbstractLearner):
    """`comln.learners.IMAML` with its pull in every step, whose meta-gradient goes back through all steps: exact."""

    network: WholeNetwork
    step: float
    steps: int
    proximal: float
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        start, fixed = eqx.partition(self.network, eqx.is_inexact_array)

        def loss(weights: Any) -> Scalar:
            squares = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), weights, start)
            pull = self.proximal / 2 * jnp.sum(jnp.stack(jax.tree.leaves(squares)))
            return mean_loss(eqx.combine(weights, fixed)(support.inputs), support) + pull

        adapted = checkpointed_descent(loss, start, self.step, self.steps)
        return eqx.combine(adapted, fixed), steps_taken(adapted, self.steps)


@dataclass(frozen=True)
class GradientError:
    """How a gradient differs from the exact one.

    - `steps`: of gradient descent before it.
    - `relative`: the length of the difference over that of the exact gradient.
    - `cosine`: of the angle between them.
    """

    steps: int
    relative: float
    cosine: float


def gradient_error(learner: IMAML, task: Episode) -> GradientError:
    """Compare the gradient of a task's query loss in all that is learned; `task` is of images."""
    exact = UnrolledIMAML(network=learner.network, step=learner.step, steps=learner.steps, proximal=learner.proximal)
    found, expected = _gradient(learner, task), _gradient(exact, task)
    length = jnp.linalg.norm(expected)
    cosine = jnp.vdot(found, expected) / (jnp.linalg.norm(found) * length)
    return GradientError(learner.steps, float(jnp.linalg.norm(found - expected) / length), float(cosine))


def _gradient(learner: AbstractLearner, task: Episode) -> jax.Array:
    program = whole_program(learner, task)
    return ravel_pytree(program.compile()(*program.arguments)[0])[0]
