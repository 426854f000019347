"""Embed, adapt, query: the same lines for every learner."""

__all__ = ["EpisodeInfo", "embed_batch", "meta_loss"]

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from comln.backbones import AbstractBackbone, Normalisation
from comln.devices import over_tasks
from comln.episode import Episode, Examples
from comln.learners.base import AbstractLearner, Outcome
from comln.typing import Array, Int, PRNGKeyArray, Scalar


class EpisodeInfo(eqx.Module):
    """What is nice to know of a meta-batch.

    - `accuracy`: share of query examples classified rightly, over the tasks that worked.
    - `dropped`: tasks whose adaptation failed.
    - `solver_steps`: inner steps of the slowest task.
    """

    accuracy: Scalar
    dropped: Int[Array, ""]
    solver_steps: Int[Array, ""]


def embed_batch(
    backbone: AbstractBackbone,
    episodes: Episode,
    statistics: Any,
    normalisation: Normalisation,
    key: PRNGKeyArray | None = None,
) -> tuple[Episode, Any]:
    """Return a batch of episodes with embeddings for inputs, and the batch statistics moved by it.

    All examples of all tasks, support and query together, are one batch to the network. `key` is for what is random in
    the network in training; `None` is the deterministic form.
    """
    tasks, support = episodes.support.labels.shape[:2]
    inputs = jnp.concatenate([episodes.support.inputs, episodes.query.inputs], axis=1)
    flat = inputs.reshape(-1, *inputs.shape[2:])
    embeddings, statistics = backbone(flat, statistics, normalisation, key)
    embeddings = embeddings.reshape(tasks, -1, *embeddings.shape[1:])
    embedded = Episode(
        _with_inputs(episodes.support, embeddings[:, :support]), _with_inputs(episodes.query, embeddings[:, support:])
    )
    return embedded, statistics


def _with_inputs(examples: Examples, inputs: Array) -> Examples:
    return Examples(inputs, examples.labels, examples.mask)


def meta_loss(
    learner: AbstractLearner,
    episodes: Episode,
    statistics: Any,
    normalisation: Normalisation,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
) -> tuple[Scalar, tuple[Any, EpisodeInfo]]:
    """Return the learner's objective averaged over a batch of tasks, with the moved statistics and an `EpisodeInfo`.

    A task whose adaptation failed takes no part: its objective and its gradient are left out, and it is counted.

    - `mesh`: the devices that the tasks are spread over, if there are several.
    """
    keys = jax.random.split(key, len(episodes.support.labels) + 1)
    embedded, statistics = embed_batch(learner.backbone, episodes, statistics, normalisation, keys[-1])
    parameters, fixed = eqx.partition(learner, eqx.is_inexact_array)

    def one_task(parameters: Any, episode: Episode, key: PRNGKeyArray) -> tuple[Scalar, Outcome]:
        return eqx.combine(parameters, fixed).objective(episode, key)

    objective = _without_gradient_where_it_failed(one_task)
    objectives, outcomes = over_tasks(objective, mesh)(parameters, embedded, keys[:-1])
    ok = outcomes.ok
    kept = jnp.maximum(jnp.sum(ok), 1).astype(objectives.dtype)
    mean = jnp.sum(jnp.where(ok, objectives, 0.0)) / kept
    accuracy = jnp.sum(jnp.where(ok, jax.vmap(query_accuracy)(outcomes, embedded.query), 0.0)) / kept
    info = EpisodeInfo(accuracy, jnp.sum(~ok), jnp.max(outcomes.steps))
    # With no task left there is nothing to learn from, and the loop must hear of it.
    return jnp.where(jnp.any(ok), mean, jnp.nan), (statistics, info)


def _without_gradient_where_it_failed(one_task: Callable[..., tuple[Scalar, Outcome]]) -> Callable[..., Any]:
    """Return `one_task`, whose gradient is exactly zero where its adaptation failed.

    Multiplying by a cotangent of zero is not enough: numbers that overflowed on the way make it a NaN.
    """

    @jax.custom_vjp
    def guarded(parameters: Any, episode: Episode, key: PRNGKeyArray) -> tuple[Scalar, Outcome]:
        return one_task(parameters, episode, key)

    def forward(parameters: Any, episode: Episode, key: PRNGKeyArray) -> Any:
        # Labels and masks are given, not computed: some heads refuse to be differentiated by them.
        def of_inputs(parameters: Any, support: Array, query: Array) -> tuple[Scalar, Outcome]:
            return one_task(
                parameters, Episode(_with_inputs(episode.support, support), _with_inputs(episode.query, query)), key
            )

        objective, pull_back, outcome = jax.vjp(
            of_inputs, parameters, episode.support.inputs, episode.query.inputs, has_aux=True
        )
        return (objective, outcome), (pull_back, outcome.ok, episode)

    def backward(residuals: Any, cotangents: Any) -> Any:
        pull_back, ok, episode = residuals
        parameters_bar, support_bar, query_bar = jax.tree.map(
            lambda x: jnp.where(ok, x, jnp.zeros_like(x)), pull_back(cotangents[0])
        )
        unmoved = jax.tree.map(jnp.zeros_like, episode)
        episode_bar = Episode(_with_inputs(unmoved.support, support_bar), _with_inputs(unmoved.query, query_bar))
        return parameters_bar, episode_bar, None

    guarded.defvjp(forward, backward)
    return guarded


def query_accuracy(outcome: Outcome, query: Examples) -> Scalar:
    """Return the share of the query examples, as `mask` weighs them, whose class has the largest logit."""
    right = jnp.argmax(outcome.logits, axis=-1) == jnp.argmax(query.labels, axis=-1)
    return jnp.sum(jnp.where(right, query.mask, 0.0)) / jnp.sum(query.mask)
