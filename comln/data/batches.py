"""Batches of tasks, as arrays ready for the device."""

__all__ = ["TaskBatch", "gather", "look_up", "make_batch", "make_positions", "scale_bytes", "to_episodes"]

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.data.augmentation import AbstractAugmentation
from comln.data.pixel_scaling import PixelScaling
from comln.data.sampling import IndexEpisode, Sampler
from comln.episode import Episode, Examples
from comln.typing import Array, Float, Num, PRNGKeyArray


class TaskBatch(NamedTuple):
    """The raw examples of some tasks of one shape, or their positions in a split.

    - `support`: shape `(task, way, shot, ...)`; `query`: shape `(task, way, query, ...)`.
    - `numbers`: the number of each task, shape `(task,)`.
    """

    support: Num[Array | np.ndarray, "task way shot ..."]
    query: Num[Array | np.ndarray, "task way query ..."]
    numbers: Num[Array | np.ndarray, " task"]


def make_batch(sampler: Sampler, seed: int, indices: Sequence[int]) -> TaskBatch:
    """Return the tasks with these numbers."""
    episodes = [sampler.draw(seed, index) for index in indices]
    return gather(episodes, indices, lambda positions: sampler.split.examples[positions])


def make_positions(sampler: Sampler, seed: int, indices: Sequence[int]) -> TaskBatch:
    """Return the positions of the examples of the tasks with these numbers, from which `look_up` makes the tasks."""
    episodes = [sampler.draw(seed, index) for index in indices]
    return gather(episodes, indices, lambda positions: positions.astype(np.int32))


def look_up(positions: TaskBatch, examples: Num[Array, "example ..."]) -> TaskBatch:
    """Return the tasks whose examples are at some positions. Traceable.

    >>> tasks = TaskBatch(np.array([[[1]]]), np.array([[[0, 2]]]), np.array([7]))
    >>> look_up(tasks, jnp.array([10, 20, 30], jnp.uint8)).query
    Array([[[10, 30]]], dtype=uint8)
    """

    def at(x: Num[Array | np.ndarray, "..."]) -> Array:
        # A sampler draws no position that is not there.
        return examples.at[x].get(mode="promise_in_bounds")

    return TaskBatch(at(positions.support), at(positions.query), positions.numbers)


def gather(
    episodes: Sequence[IndexEpisode], indices: Sequence[int], look_up: Callable[[np.ndarray], np.ndarray]
) -> TaskBatch:
    """Return the examples that `episodes` point at; `look_up` takes positions of any shape to examples."""
    support = look_up(np.stack([episode.support for episode in episodes]))
    query = look_up(np.stack([episode.query for episode in episodes]))
    return TaskBatch(support, query, np.asarray(indices, np.uint32))


def to_episodes(
    batch: TaskBatch,
    augmentation: AbstractAugmentation | None,
    key: PRNGKeyArray,
    scaling: PixelScaling | None = None,
) -> Episode:
    """Return a batch of episodes: classes one-hot, examples varied by `augmentation`, bytes scaled by `scale_bytes`.

    The variation of a task is a pure function of `key` and its number. Traceable.
    """

    def one_task(support: Array, query: Array, number: Array) -> Episode:
        ways, shots, queries = *support.shape[:2], query.shape[1]
        examples = jnp.concatenate([_merge(support), _merge(query)])
        if augmentation is not None:
            examples = augmentation(examples, jax.random.fold_in(key, number))
        return Episode(
            _label(scale_bytes(examples[: ways * shots], scaling), ways, shots),
            _label(scale_bytes(examples[ways * shots :], scaling), ways, queries),
        )

    return jax.vmap(one_task)(*map(jnp.asarray, batch))


def _merge(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def scale_bytes(x: Num[Array, "..."], scaling: PixelScaling | None = None) -> Float[Array, "..."]:
    """Return bytes as `scaling` has them, without it in [0, 1]; and other numbers as they are. In default precision."""
    numbers = x.astype(jnp.result_type(float))
    if x.dtype != jnp.uint8:
        return numbers
    return numbers / 255 if scaling is None else scaling(numbers)


def _label(examples: Array, ways: int, each: int) -> Examples:
    labels = jnp.repeat(jnp.eye(ways, dtype=examples.dtype), each, axis=0)
    return Examples(examples, labels, jnp.ones(ways * each, examples.dtype))
