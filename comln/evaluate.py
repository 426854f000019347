"""Accuracy on fixed tasks of unseen classes, with its confidence interval."""

__all__ = [
    "Evaluation",
    "embed_with_running_statistics",
    "embedded_tasks",
    "evaluate",
    "evaluate_embedded",
    "mean_and_ci95",
    "query_probabilities",
]

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.backbones import AbstractBackbone, Normalisation
from comln.data.batches import gather, make_batch, scale_bytes, to_episodes
from comln.data.pixel_scaling import PixelScaling
from comln.data.sampling import Sampler
from comln.data.source import Split
from comln.episode import Episode
from comln.episodic import embed_batch, query_accuracy
from comln.learners import AbstractLearner
from comln.typing import Array, Float

TASKS_AT_ONCE = 50
IMAGES_AT_ONCE = 512


@dataclass(frozen=True)
class Evaluation:
    r"""Accuracies of many tasks.

    - `accuracies`: share of query examples classified rightly, task by task; zero where the adaptation failed.
    - `failed`: number of tasks whose adaptation failed.

    >>> result = Evaluation(np.array([0.5, 1.0]), failed=0)
    >>> result.mean, round(result.ci95, 2)
    (0.75, 0.49)
    """

    accuracies: np.ndarray
    failed: int

    @property
    def mean(self) -> float:
        """The mean accuracy, in [0, 1]."""
        return mean_and_ci95(self.accuracies)[0]

    @property
    def ci95(self) -> float:
        r"""Half-width of the 95 % confidence interval of the mean, $1.96 \sigma / \sqrt{n}$."""
        return mean_and_ci95(self.accuracies)[1]


def mean_and_ci95(values: np.ndarray) -> tuple[float, float]:
    r"""Return the mean, and the half-width $1.96 \sigma / \sqrt n$ of its 95 % confidence interval.

    >>> mean, half_width = mean_and_ci95(np.array([0.0, 2.0]))
    >>> mean, round(half_width, 2)
    (1.0, 1.96)
    """
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))


def evaluate(
    learner: AbstractLearner,
    statistics: Any,
    sampler: Sampler,
    tasks: int,
    seed: int,
    normalisation: Normalisation,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Return the accuracy of `learner` on tasks 0 to `tasks` - 1 of `seed`: the same ones for every learner.

    - `tasks`: at least two, for an interval.
    - `on_progress`: called with the number of tasks done so far.
    """
    episodes = embedded_tasks(learner.backbone, statistics, sampler, tasks, seed, normalisation)
    return evaluate_embedded(learner, episodes, tasks, on_progress)


def evaluate_embedded(
    learner: AbstractLearner,
    batches: Iterable[Episode],
    tasks: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Return the accuracy of `learner` on the first `tasks` of batches of embedded tasks."""
    if tasks < 2:
        raise ValueError(f"An evaluation needs at least 2 tasks for its confidence interval, got {tasks}.")
    accuracies, worked = [], []
    for episodes in batches:
        accuracy, ok = _accuracies(learner, episodes)
        accuracies.append(np.where(ok, accuracy, 0.0))
        worked.append(np.asarray(ok))
        on_progress(min(tasks, TASKS_AT_ONCE * len(accuracies)))
    return Evaluation(np.concatenate(accuracies)[:tasks].astype(float), int(np.sum(~np.concatenate(worked)[:tasks])))


@eqx.filter_jit
def _accuracies(learner: AbstractLearner, episodes: Episode) -> tuple[Array, Array]:
    def one_task(episode: Episode) -> tuple[Array, Array]:
        outcome = learner.classify(episode)
        return query_accuracy(outcome, episode.query), outcome.ok

    return jax.vmap(one_task)(episodes)


@eqx.filter_jit
def query_probabilities(learner: AbstractLearner, episodes: Episode) -> Float[Array, "task query way"]:
    """Return the class probabilities of every query example of a batch of embedded tasks."""
    return jax.nn.softmax(jax.vmap(lambda episode: learner.classify(episode).logits)(episodes))


def embedded_tasks(
    backbone: AbstractBackbone, statistics: Any, sampler: Sampler, tasks: int, seed: int, normalisation: Normalisation
) -> Iterator[Episode]:
    """Yield batches of `TASKS_AT_ONCE` embedded tasks, the last one filled up with repetitions of its last task.

    With running statistics the embedding of an example that is used as it is does not depend on the task, so every
    distinct one is embedded once; with batch statistics, or where examples are varied, each task is embedded by itself.
    """
    numbers = [np.minimum(np.arange(i, i + TASKS_AT_ONCE), tasks - 1) for i in range(0, tasks, TASKS_AT_ONCE)]
    key = jax.random.key(seed)
    split = sampler.split
    if normalisation is Normalisation.BATCH or split.augmentation is not None:
        for batch in numbers:
            raw = make_batch(sampler, seed, [int(i) for i in batch])
            episodes = to_episodes(raw, split.augmentation, key, split.scaling)
            yield _embed_each(backbone, episodes, statistics, normalisation)
        return
    drawn = [sampler.draw(seed, index) for index in range(tasks)]
    used = np.unique(np.concatenate([np.concatenate([e.support.ravel(), e.query.ravel()]) for e in drawn]))
    embeddings = _embed_examples(backbone, statistics, split, used)
    place = np.zeros(len(split.examples), np.int64)
    place[used] = np.arange(len(used))
    for batch in numbers:
        index_episodes = [drawn[i] for i in batch]
        raw = gather(index_episodes, batch.tolist(), lambda positions: embeddings[place[positions]])
        yield to_episodes(raw, None, key)


@eqx.filter_jit
def _embed_each(
    backbone: AbstractBackbone, episodes: Episode, statistics: Any, normalisation: Normalisation
) -> Episode:
    def one_task(episode: Episode) -> Episode:
        batch_of_one = jax.tree.map(lambda x: x[None], episode)
        embedded, _ = embed_batch(backbone, batch_of_one, statistics, normalisation)
        return jax.tree.map(lambda x: x[0], embedded)

    return jax.lax.map(one_task, episodes)


def _embed_examples(
    backbone: AbstractBackbone, statistics: Any, split: Split, used: np.ndarray
) -> Float[np.ndarray, "example feature"]:
    parts = []
    for start in range(0, len(used), IMAGES_AT_ONCE):
        chosen = np.resize(used[start : start + IMAGES_AT_ONCE], IMAGES_AT_ONCE)
        images = split.examples[chosen]
        parts.append(np.asarray(embed_with_running_statistics(backbone, statistics, images, split.scaling)))
    return np.concatenate(parts)[: len(used)]


@eqx.filter_jit
def embed_with_running_statistics(
    backbone: AbstractBackbone, statistics: Any, examples: Array | np.ndarray, scaling: PixelScaling | None
) -> Array:
    """Return the embeddings of examples as they are stored, each by itself."""
    return backbone(scale_bytes(jnp.asarray(examples), scaling), statistics, Normalisation.RUNNING)[0]
