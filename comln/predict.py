"""Classify one's own examples: adapt a run to a few labelled ones of any classes, then ask it for more."""

__all__ = ["Assessment", "Classifier", "Prediction", "adapt", "assess", "mixed_blocks", "predict"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.backbones import Identity, Normalisation
from comln.data.batches import scale_bytes
from comln.data.input_form import InputForm
from comln.data.pixel_scaling import PixelScaling
from comln.data.sources.raw_split import index_classes
from comln.embed import RunNetwork, input_form
from comln.episode import Episode, Examples
from comln.episodic import embed_batch
from comln.heads import AbstractHead
from comln.learners import COMLN, AbstractLearner
from comln.learners.base import Outcome
from comln.run import Run
from comln.typing import Array

Z95 = 1.959964
"""Of the normal distribution, 95 % lies within so many standard deviations."""


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of some examples.

    - `classes`: names, in the order of the columns. `probabilities`: shape `(example, way)`.

    >>> Prediction(("cat", "owl"), np.array([[0.9, 0.1], [0.2, 0.8]])).predicted
    ('cat', 'owl')
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def predicted(self) -> tuple[str, ...]:
        """The most probable class of each example."""
        return tuple(self.classes[index] for index in self.probabilities.argmax(axis=1).tolist())


def predict(
    run: Run,
    support: np.ndarray,
    labels: Sequence[str],
    query: np.ndarray,
    horizon: float | None = None,
    balanced: bool = True,
) -> Prediction:
    """Return the class probabilities of `query`, by what `run` makes of a few labelled examples.

    - `support`, `query`: images as uint8, shape `(example, height, width, channel)`, or embeddings `(example,
      feature)`, of the shape that the run was trained on.
    - `labels`: the class of each support example, of at least two classes with at least one example each.
    - `horizon`: $T$ in place of the learned one; for COMLN.
    - `balanced`: whether the examples of a class weigh together what those of any other do. Otherwise each example
      weighs the same, and a class with more of them is likelier.

    **Raises:** `ValueError` and `RuntimeError` as `adapt`.
    """
    classifier = adapt(run, support, labels, horizon, balanced)
    return Prediction(classifier.classes, classifier.probabilities(query))


class Classifier:
    """A run that has been adapted to some classes.

    - `classes`: their names, sorted. `shots`: support examples of each.
    - `note`: what changed since there are more or fewer classes than in training; empty if nothing.
    - `horizon`: the time that the flow was followed for; `None` for methods without one.
    - `together`: how many examples are normalised together, so that a probability depends on the others; 0 for none.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        shots: tuple[int, ...],
        note: str,
        horizon: float | None,
        together: int,
        form: InputForm,
        head: "_Head | _TaskByTask",
    ) -> None:
        self.classes, self.shots, self.note, self.horizon, self.together = classes, shots, note, horizon, together
        self._form, self._head = form, head

    def probabilities(self, query: np.ndarray) -> np.ndarray:
        """Return the class probabilities of examples in the form of the run, shape `(example, way)`.

        **Raises:** `ValueError` where they have another form.
        """
        query = in_form(query, self._form, "query")
        result = np.empty((len(query), len(self.classes)))
        for chosen in mixed_blocks(len(query), self.together or len(query)):
            result[chosen] = np.asarray(jax.nn.softmax(self._head(query[chosen])))
        return result


def adapt(
    run: Run,
    support: np.ndarray,
    labels: Sequence[str],
    horizon: float | None = None,
    balanced: bool = True,
    form: InputForm | None = None,
) -> Classifier:
    """Return the classifier that `run` makes of a few labelled examples; the arguments are those of `predict`.

    - `form`: what the run expects; `None` where `comln.embed.input_form` knows.

    **Raises:** `ValueError` where examples have another form, there are fewer than two classes, the method cannot do
    so many, or has no horizon; `RuntimeError` where the adaptation fails.
    """
    form = input_form(run) if form is None else form
    support = in_form(support, form, "support")
    if len(labels) != len(support):
        raise ValueError(f"{len(support)} support examples need as many labels, got {len(labels)}.")
    classes, class_of = index_classes([str(label) for label in labels])
    if len(classes) < 2:
        raise ValueError(f"There is nothing to choose from: {len(classes)} class in the support. Give at least two.")
    learner = run.experiment.at_test(run.learner)
    if horizon is not None:
        learner = _with_horizon(learner, horizon)
    note, precision = learner.ways_note(len(classes)), jnp.result_type(float)
    one_hot, shots = jnp.eye(len(classes), dtype=precision)[class_of], np.bincount(class_of)
    weights = len(support) / (len(classes) * shots[class_of]) if balanced else np.ones(len(support))
    mask = jnp.asarray(weights, precision)
    together, followed = 0, None
    # Embeddings are normalised nowhere: each is by itself, also for methods that normalise images together.
    if run.experiment.normalisation is Normalisation.BATCH and form.is_image:
        inputs = scale_bytes(jnp.asarray(support), form.scaling)
        head = _TaskByTask(learner, run.statistics, Examples(inputs, one_hot, mask), form.scaling)
        together = run.experiment.test.ways * run.experiment.test.queries
        followed = float(learner.horizon) if isinstance(learner, COMLN) and learner.task_horizon is None else None
    else:
        network = None if isinstance(learner.backbone, Identity) else RunNetwork(run, form)
        embedded = Examples(_embed(network, support), one_hot, mask)
        head = _Head(network, _adapted(learner, embedded))
        followed = float(learner.horizon_for(embedded)) if isinstance(learner, COMLN) else None
    return Classifier(classes, tuple(shots.tolist()), note, followed, together, form, head)


def in_form(examples: np.ndarray, form: InputForm, which: str) -> np.ndarray:
    """Return examples, embeddings normalised as in training.

    **Raises:** `ValueError` where they are not of the form, `which` saying which they are.
    """
    if examples.ndim != len(form.shape) + 1 or examples.shape[1:] != form.shape:
        kind = "images" if form.is_image else "embeddings"
        raise ValueError(
            f"This run takes {kind} of shape {form.shape}, but the {which} has the shape {examples.shape[1:]}."
        )
    if form.is_image:
        if examples.dtype != np.uint8:
            raise ValueError(f"Images must be uint8, from 0 to 255; the {which} is {examples.dtype}.")
        return examples
    if not np.isfinite(examples).all():
        raise ValueError(f"The {which} has embeddings with numbers that are not finite.")
    if form.normalise == "none":
        return examples
    norms = np.linalg.norm(examples, axis=1, keepdims=True)
    if not norms.all():
        raise ValueError(f"The {which} has an embedding that is zero, which has no direction, as this run needs.")
    return examples / norms


def mixed_blocks(count: int, size: int) -> list[np.ndarray]:
    """Return which of `count` examples go into each block of at most `size`, each block a mixture of all.

    Examples of one class often stand next to one another, and batch statistics of one class alone would mislead.

    >>> [block.tolist() for block in mixed_blocks(5, 2)]
    [[0, 3], [1, 4], [2]]
    """
    blocks = -(-count // max(size, 1))
    return [np.arange(count)[start::blocks] for start in range(blocks)]


def _with_horizon(learner: AbstractLearner, horizon: float) -> AbstractLearner:
    if not isinstance(learner, COMLN):
        raise ValueError(f"A horizon is for runs of COMLN; this is one of {type(learner).__name__}, which has none.")
    if not horizon >= 0:
        raise ValueError(f"The horizon must be at least 0, got {horizon}.")
    return learner.with_horizon(horizon)


class _Head:
    """Embeds each example by itself, and applies a head that was adapted once."""

    def __init__(self, network: RunNetwork | None, head: AbstractHead) -> None:
        self._network, self._head = network, head

    def __call__(self, query: np.ndarray) -> Array:
        return self._head(_embed(self._network, query))


class _TaskByTask:
    """Embeds support and query together and adapts to them anew, as in training."""

    def __init__(
        self, learner: AbstractLearner, statistics: Any, support: Examples, scaling: PixelScaling | None
    ) -> None:
        self._learner, self._statistics, self._support, self._scaling = learner, statistics, support, scaling

    def __call__(self, query: np.ndarray) -> Array:
        inputs = scale_bytes(jnp.asarray(query), self._scaling)
        labels = jnp.zeros((len(query), self._support.labels.shape[1]), inputs.dtype)
        episode = Episode(self._support, Examples(inputs, labels, jnp.ones(len(query), inputs.dtype)))
        outcome = _classify(self._learner, self._statistics, episode)
        if not bool(outcome.ok):
            raise RuntimeError(_failure(self._learner))
        return outcome.logits


def _embed(network: RunNetwork | None, examples: np.ndarray) -> Array:
    return scale_bytes(jnp.asarray(examples)) if network is None else jnp.asarray(network(examples))


def _adapted(learner: AbstractLearner, support: Examples) -> AbstractHead:
    # The flow is compiled as it is; outside of other compiled code it says what went wrong.
    head, info = learner.adapt(support) if isinstance(learner, COMLN) else eqx.filter_jit(learner.adapt)(support)
    if not bool(info.ok):
        raise RuntimeError(_failure(learner))
    return head


def _failure(learner: AbstractLearner) -> str:
    remedy = "Try a shorter --horizon." if isinstance(learner, COMLN) else "Try other support examples, or another run."
    return f"The adaptation of {type(learner).__name__} to this support failed. {remedy}"


@eqx.filter_jit
def _classify(learner: AbstractLearner, statistics: Any, episode: Episode) -> Outcome:
    batch_of_one = jax.tree.map(lambda x: x[None], episode)
    embedded, _ = embed_batch(learner.backbone, batch_of_one, statistics, Normalisation.BATCH)
    return learner.classify(jax.tree.map(lambda x: x[0], embedded))


@dataclass(frozen=True)
class Assessment:
    """How right predictions were.

    - `confusion`: how many examples of each class (row) were taken for each (column), shape `(way, way)`.

    >>> result = Assessment(np.array([[4, 0], [1, 5]]))
    >>> result.accuracy, [round(end, 3) for end in result.interval]
    (0.9, [0.596, 0.982])
    """

    confusion: np.ndarray

    @property
    def count(self) -> int:
        """How many examples there were."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of examples whose most probable class was right."""
        return float(np.trace(self.confusion)) / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy on further examples of the same kind (Wilson, 1927).

        It takes examples as drawn one by one, and says nothing of how other support examples would have done.
        """
        n, share = self.count, self.accuracy
        middle = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


def assess(classes: Sequence[str], predicted: Sequence[str], actual: Sequence[str | None]) -> Assessment | None:
    """Return how right predictions were, for examples whose actual class is one of `classes`; `None` without any.

    >>> assess(["cat", "owl"], ["cat", "owl", "owl"], ["cat", "cat", None]).confusion.tolist()
    [[1, 1], [0, 0]]
    """
    place = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    for guess, truth in zip(predicted, actual, strict=True):
        if truth in place:
            confusion[place[truth], place[guess]] += 1
    return Assessment(confusion) if confusion.any() else None
