"""Support vector machines on tasks of frozen embeddings: MetaOptNet's, cut short and exact, and scikit-learn's."""

__all__ = ["CHOICES", "CHOSEN", "EXACT_ITERATIONS", "HEADS", "SETTINGS", "HeadAccuracies", "svm_heads"]

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from comln.backbones import Identity, Normalisation
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split
from comln.episode import Episode
from comln.evaluate import embedded_tasks, evaluate_embedded
from comln.learners import MetaOptNetSVM

TEST_SEED = 0
ITERATIONS = (3, 15)
EXACT_ITERATIONS = 100
"""The solver stops by itself where there is nothing to gain."""

FITTED_TASKS = 300
"""Of the tasks, the first so many are fitted by scikit-learn, one at a time."""

OURS = {f"interior point, {count} iterations": count for count in ITERATIONS} | {"exact": EXACT_ITERATIONS}
CHOSEN = "scikit-learn SVC, linear, C chosen"
"""The machine whose C is chosen."""

THEIRS = ("scikit-learn SVC, linear", CHOSEN, "scikit-learn LinearSVC, Crammer-Singer")
HEADS = (*OURS, *THEIRS)
"""What is compared."""

CHOICES = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Values of C, of which tasks of the validation classes choose one."""

CHOOSING_TASKS = 100

SETTINGS = {"iterations": OURS, "fitted tasks": FITTED_TASKS, "choices": CHOICES, "choosing tasks": CHOOSING_TASKS}
"""What the accuracies depend on, besides the tasks, the bound and the versions of libraries."""


@dataclass(frozen=True)
class HeadAccuracies:
    """One kind of machine.

    - `head`: which.
    - `penalty`: C.
    - `accuracies`: on each task; fewer where each is fitted by itself.
    """

    head: str
    penalty: float
    accuracies: tuple[float, ...]


def svm_heads(
    splits: Mapping[str, Split], shape: EpisodeShape, tasks: int, bound: float = 0.1
) -> Iterator[HeadAccuracies]:
    """Yield the accuracies of each kind of machine on the same tasks of embeddings, those of the test classes.

    - `bound`: C of MetaOptNet's machine, whose kernel has a ridge of one. Those of scikit-learn have no ridge, and
      their default, C = 1, but for the one whose C is chosen on tasks of the validation classes.
    """
    backbone = Identity(splits["test"].examples.shape[1])

    def embedded(split: str, count: int) -> list[Episode]:
        sampler = Sampler(splits[split], shape)
        return list(embedded_tasks(backbone, (), sampler, count, TEST_SEED, Normalisation.RUNNING))

    batches = embedded("test", tasks)
    for head, iterations in OURS.items():
        learner = MetaOptNetSVM.init(backbone, bound, iterations)
        yield HeadAccuracies(head, bound, tuple(evaluate_embedded(learner, batches, tasks).accuracies.tolist()))
    count = min(tasks, FITTED_TASKS)
    for head in THEIRS:
        penalty = 1.0
        if head == CHOSEN:
            validation = embedded("val", CHOOSING_TASKS)
            means = [np.mean(_fitted(_machine(head, c), validation, CHOOSING_TASKS)) for c in CHOICES]
            penalty = CHOICES[int(np.argmax(means))]
        yield HeadAccuracies(head, penalty, _fitted(_machine(head, penalty), batches, count))


def _machine(head: str, penalty: float) -> Callable[[], Any]:
    from sklearn.svm import SVC, LinearSVC

    if head == THEIRS[-1]:
        return lambda: LinearSVC(
            C=penalty, multi_class="crammer_singer", fit_intercept=False, max_iter=20_000, random_state=0
        )
    return lambda: SVC(kernel="linear", C=penalty)


def _fitted(make: Callable[[], Any], batches: list[Episode], count: int) -> tuple[float, ...]:
    """Return the accuracy of a machine that is fitted to each of the first `count` tasks."""
    accuracies: list[float] = []
    for batch in batches:
        arrays, _ = eqx.partition(batch, eqx.is_array)
        for number in range(len(batch.support.mask)):
            if len(accuracies) == count:
                return tuple(accuracies)
            task: Episode = jax.tree.map(lambda x, number=number: np.asarray(x[number]), arrays)
            with warnings.catch_warnings():
                # Separable tasks have solutions that are approached slowly; their predictions are settled long before.
                warnings.simplefilter("ignore")
                fitted = make().fit(task.support.inputs, task.support.labels.argmax(axis=1))
            right = fitted.predict(task.query.inputs) == np.asarray(task.query.labels).argmax(axis=1)
            accuracies.append(float(np.mean(right)))
    return tuple(accuracies)
