"""What a few-shot learner is: it adapts a head to one task's embeddings."""

__all__ = [
    "AbstractLearner",
    "AdaptationInfo",
    "Outcome",
    "ParameterGroup",
    "mean_loss",
    "refuse_other_ways",
    "smooth_labels",
    "steps_taken",
]

import abc
import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Episode, Examples
from comln.heads import AbstractHead
from comln.losses import CrossEntropy
from comln.typing import AbstractVar, Array, Bool, Float, Int, PRNGKeyArray, Scalar


class AdaptationInfo(eqx.Module):
    """What is nice to know of an adaptation.

    - `ok`: whether it worked. A task that failed takes no part in the loss, and is counted.
    - `steps`: inner steps taken.
    """

    ok: Bool[Array, ""]
    steps: Int[Array, ""]


class Outcome(eqx.Module):
    """What became of one task: the query examples' logits, whether the adaptation worked, and its inner steps."""

    logits: Float[Array, "query way"]
    ok: Bool[Array, ""]
    steps: Int[Array, ""]


class ParameterGroup(enum.StrEnum):
    """Which optimiser settings a meta-parameter falls under.

    - `NETWORK`: everything but the following.
    - `SCALE`: a step size of an inner loop, or a factor of logits. It moves as the network does, without weight decay.
    - `HORIZON`: the logarithm of a time. It has its own step size, and no weight decay.
    """

    NETWORK = "network"
    SCALE = "scale"
    HORIZON = "horizon"


class AbstractLearner(eqx.Module):
    """A method of few-shot learning. Its array leaves are what is meta-learned; its Python numbers are fixed."""

    backbone: AbstractVar[AbstractBackbone]
    query_smoothing: AbstractVar[float]

    @abc.abstractmethod
    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[AbstractHead, AdaptationInfo]:
        """Return the head adapted to the embeddings of one task, and how it went.

        `key=None` is the deterministic form, used in evaluation.
        """

    def scalars(self) -> dict[str, Scalar]:
        """Return the meta-learned numbers that are worth watching during training, by name."""
        return {}

    def ways_note(self, ways: int) -> str:
        """Return what changes on tasks of another number of `ways` than trained, or nothing.

        **Raises:** `ValueError` where the method cannot do them.
        """
        return ""

    def parameter_groups(self) -> Any:
        """Return the learner's inexact array leaves, each replaced by its `ParameterGroup`."""
        return jax.tree.map(lambda _: ParameterGroup.NETWORK, eqx.filter(self, eqx.is_inexact_array))

    def objective(self, episode: Episode, key: PRNGKeyArray | None = None) -> tuple[Scalar, Outcome]:
        """Return what meta-training makes small on one task of embeddings: the adapted head's mean query loss."""
        outcome = self.classify(episode, key)
        labels = smooth_labels(episode.query.labels, self.query_smoothing)
        return mean_loss(outcome.logits, Examples(episode.query.inputs, labels, episode.query.mask)), outcome

    def classify(self, episode: Episode, key: PRNGKeyArray | None = None) -> Outcome:
        """Return the query logits of the head adapted to the support, both given as embeddings."""
        head, info = self.adapt(episode.support, key)
        # A head that failed is NaN. Zeros in its place give logits that prefer no class, instead of more NaNs.
        parameters, fixed = eqx.partition(head, eqx.is_inexact_array)
        head = eqx.combine(jax.tree.map(lambda x: jnp.where(info.ok, x, jnp.zeros_like(x)), parameters), fixed)
        return Outcome(head(episode.query.inputs), info.ok, info.steps)


def mean_loss(logits: Float[Array, "example way"], examples: Examples) -> Scalar:
    """Return the mean cross-entropy of the examples, as `mask` weighs them.

    >>> labels, mask = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 0.0])
    >>> float(mean_loss(jnp.zeros((2, 2)), Examples(jnp.zeros((2, 1)), labels, mask)).round(4))
    0.6931
    """
    losses = CrossEntropy().value(logits, examples.labels)
    return jnp.sum(examples.mask * losses) / jnp.sum(examples.mask)


def steps_taken(adapted: Any, steps: int) -> AdaptationInfo:
    """Return how an adaptation by a fixed number of steps went: it worked if all its numbers are finite."""
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(eqx.filter(adapted, eqx.is_inexact_array))]
    return AdaptationInfo(jnp.all(jnp.stack(finite)), jnp.asarray(steps, jnp.int32))


def refuse_other_ways(method: str, learned: int, ways: int) -> str:
    """Return nothing if `ways` are those that a method has `learned` initial weights for.

    **Raises:** `ValueError` if not.
    """
    if ways != learned:
        raise ValueError(
            f"{method} learned where to start for {learned} ways, and has no start for {ways}. Train it "
            f"on {ways}-way tasks."
        )
    return ""


def smooth_labels(labels: Float[Array, "example way"], share: float) -> Float[Array, "example way"]:
    """Return `labels` with `share` of each taken from the true class and spread evenly over the others.

    >>> smooth_labels(jnp.array([[1.0, 0.0, 0.0]]), 0.5).tolist()
    [[0.5, 0.25, 0.25]]
    """
    return labels if share == 0 else (1 - share) * labels + share / (labels.shape[1] - 1) * (1 - labels)
