"""LEAP: start where the way to every task's solution is short (Flennerhag et al., 2019)."""

__all__ = ["Leap", "PathMeasure"]

import enum
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Episode, Examples
from comln.learners.base import (
    AbstractLearner,
    AdaptationInfo,
    Outcome,
    mean_loss,
    refuse_other_ways,
    steps_taken,
)
from comln.learners.whole_network import WholeNetwork
from comln.typing import PRNGKeyArray, Scalar


class PathMeasure(enum.Enum):
    """What is made small of a path: the sum of its segments' lengths, or of their squares."""

    LENGTH = "length"
    ENERGY = "energy"


class Leap(AbstractLearner):
    r"""Adapt all weights of a network by gradient descent, from where the way down is short for all tasks.

    A task's path is $\theta_{i+1} = \theta_i - \alpha \nabla L(\theta_i)$ on its support loss, drawn on the surface of
    that loss: segment $i$ goes from $(\theta_i, L(\theta_i))$ to $(\theta_{i+1}, L(\theta_{i+1}))$. With the path held
    fixed and its dependence on the start taken for the identity, the start moves along

    $$ \sum_i \frac{(\theta_i - \theta_{i+1}) - \Delta_i \nabla L(\theta_i)}{n_i}, \qquad
       \Delta_i = L(\theta_{i+1}) - L(\theta_i), \qquad
       n_i = \sqrt{\lVert\theta_{i+1} - \theta_i\rVert^2 + \Delta_i^2} $$

    ($n_i = 1$ for the energy). No query example takes part in it. Where the loss rises, $-\lvert\Delta_i\rvert$ stands
    for $\Delta_i$, so that the start is never drawn up a slope.

    - `network`: from raw examples to logits; all of its arrays are adapted.
    - `step`, `steps`: of gradient descent; `steps` may be changed after training.
    - `measure`: of the path.
    - `query_smoothing`: has no effect here.
    """

    network: WholeNetwork
    step: float
    steps: int
    measure: PathMeasure = PathMeasure.LENGTH
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    @classmethod
    def init(
        cls,
        network: AbstractBackbone,
        ways: int,
        key: PRNGKeyArray,
        step: float = 0.1,
        steps: int = 10,
        measure: PathMeasure = PathMeasure.LENGTH,
    ) -> "Leap":
        """Return a learner that adapts `network` and a linear layer on top of it."""
        return cls(network=WholeNetwork.init(network, ways, key), step=step, steps=steps, measure=measure)

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("LEAP", self.network.ways, ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        end, _, _ = self._follow_path(support)
        return end, steps_taken(end, self.steps)

    def objective(self, episode: Episode, key: PRNGKeyArray | None = None) -> tuple[Scalar, Outcome]:
        """Return the path's length (or energy), whose gradient in the start is what the start is moved along."""
        start = eqx.filter(self.network, eqx.is_inexact_array)
        parameters, fixed = eqx.partition(self, eqx.is_inexact_array)
        frozen: Leap = eqx.combine(jax.lax.stop_gradient(parameters), fixed)
        end, increment, measured = frozen._follow_path(episode.support)
        products = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), increment, start))
        surrogate = sum(products[1:], products[0])
        info = steps_taken((end, increment), self.steps)
        logits = end(episode.query.inputs)
        outcome = Outcome(jnp.where(info.ok, logits, jnp.zeros_like(logits)), info.ok, info.steps)
        return measured + surrogate - jax.lax.stop_gradient(surrogate), outcome

    def _follow_path(self, support: Examples) -> tuple[WholeNetwork, Any, Scalar]:
        """Return the network at the end of the path, the sum over the segments, and the path's measure."""
        start, fixed = eqx.partition(self.network, eqx.is_inexact_array)
        look = jax.value_and_grad(lambda weights: mean_loss(eqx.combine(weights, fixed)(support.inputs), support))

        def advance(path: _Path, _: None) -> tuple[_Path, None]:
            weights = jax.tree.map(lambda w, g: w - self.step * g, path.weights, path.slope)
            loss, slope = look(weights)
            fall = -jnp.abs(loss - path.loss)
            moved = jax.tree.map(lambda old, new: old - new, path.weights, weights)
            square = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(moved)) + jnp.square(fall)
            length = jnp.sqrt(square)
            weight = 1 / jnp.where(length > 0, length, 1.0) if self.measure is PathMeasure.LENGTH else 1.0
            increment = jax.tree.map(
                lambda total, m, g: total + weight * (m - fall * g), path.increment, moved, path.slope
            )
            measured = path.measured + (length if self.measure is PathMeasure.LENGTH else square)
            return _Path(weights, loss, slope, increment, measured), None

        loss, slope = look(start)
        nothing = jax.tree.map(jnp.zeros_like, start)
        path, _ = jax.lax.scan(advance, _Path(start, loss, slope, nothing, jnp.zeros_like(loss)), length=self.steps)
        return eqx.combine(path.weights, fixed), path.increment, path.measured


class _Path(NamedTuple):
    """Where a path is: the weights, their loss and its gradient; and what was summed up over the segments."""

    weights: Any
    loss: Scalar
    slope: Any
    increment: Any
    measured: Scalar
