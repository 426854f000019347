r"""What the page shows of one task: everything that changes along the flow, at many times, from one solve.

**Rooms.** Compiled code is for arrays of one shape, and compiling takes seconds, so tasks are filled up to one of few
shapes. Examples that fill up have weight zero. Classes that fill up must have logits so low that they take no part:
embeddings get one more feature, $\varepsilon$, and the initial weights of such a class are $-\kappa/\varepsilon$ there
and zero elsewhere. All its logits are $-\kappa$ then, its probabilities underflow to zero, and so does its gradient.
$\varepsilon$ is so small that its square vanishes against the squared norms of embeddings: the other classes move as
they would without it.
"""

__all__ = ["TIMES", "FlowOfTask", "flow_of_task"]

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.episode import Examples
from comln.flow.gradient_flow_path import FlowPath, gradient_flow_path
from comln.flow.highest_precision import at_highest_precision
from comln.learners import COMLN
from comln.learners.base import smooth_labels
from comln.losses import CrossEntropy
from comln.typing import Array, Bool, Float, Int

TIMES = 240
"""How many times a flow is read at."""
TIMES_AT_ONCE = 24
WAYS, SUPPORT, QUERIES = (8, 20), (32, 200), (60,)
"""Rooms."""
EPSILON, KAPPA = 1e-7, 1e3
"""The first in units of the embeddings' norm."""


@dataclass(frozen=True)
class FlowOfTask:
    r"""A task along its flow.

    - `horizon`: $T$ of this task.
    - `times`: ascending from 0, then even in $\log t$ but for $T$ itself, which is among them; shape `(time,)`.
    - `query_logits`: shape `(time, query, way)`.
    - `support_probabilities`: of each support example's own class, shape `(time, support)`.
    - `support_loss`: the mean cross-entropy that the flow makes small, without the proximal term, shape `(time,)`.
    - `norm`: $\lVert W(t) \rVert$, shape `(time,)`.
    - `steps`: attempted steps of the solve.
    """

    horizon: float
    times: Float[np.ndarray, " time"]
    query_logits: Float[np.ndarray, "time query way"]
    support_probabilities: Float[np.ndarray, "time support"]
    support_loss: Float[np.ndarray, " time"]
    norm: Float[np.ndarray, " time"]
    steps: int


def flow_of_task(
    learner: COMLN,
    support: Float[np.ndarray, "support feature"],
    classes: Int[np.ndarray, " support"],
    ways: int,
    queries: Float[np.ndarray, "query feature"],
) -> FlowOfTask:
    r"""Follow the flow of a task of embeddings beyond its horizon $T$.

    It ends at $10\,T$, or at $100/c^2$ if that is later, $c^2$ being the mean squared norm of the support embeddings:
    times mean nothing without them. Where it cannot be followed so far, it ends at $T$.

    **Raises:** `ValueError` or `RuntimeError` where the flow cannot be followed, with the reason.
    """
    unit = float(np.mean(np.sum(np.square(support), axis=1))) or 1.0
    task = _Task.of(learner, support, classes, ways, unit**0.5)
    natural = 1 / unit
    if not 0 < task.horizon < np.inf:
        raise ValueError(f"The learned T is {task.horizon}: this run went astray. Train again, with smaller steps.")
    path, end = _follow(learner, task, max(10 * task.horizon, 100 * natural))
    times = _times(task.horizon, min(task.horizon, natural) / 100, end).astype(support.dtype)
    times = np.minimum(times, np.asarray(path.horizon))
    asked = _filled(np.pad(queries, ((0, 0), (0, 1))), _room(len(queries), QUERIES))
    read = _read(path, task.examples, task.targets, task.real, jnp.asarray(asked), jnp.asarray(times))
    logits, probabilities, loss, norm = map(np.asarray, read)
    logits = logits[:, : len(queries), :ways]
    if not all(np.all(np.isfinite(x)) for x in (loss, norm, logits)):
        raise RuntimeError("The flow of this task left the numbers that this precision holds.")
    return FlowOfTask(task.horizon, times, logits, probabilities[:, : len(support)], loss, norm, int(path.info.steps))


class _Task(eqx.Module):
    """A task that fills its room: one more feature, and classes and examples that take no part.

    - `targets`: the labels that the flow fits, smoothed if the learner smooths them. `real`: which classes take part.
    """

    start: Float[Array, "way feature"]
    examples: Examples
    targets: Float[Array, "support way"]
    real: Bool[Array, " way"]
    horizon: float

    @classmethod
    def of(cls, learner: COMLN, support: np.ndarray, classes: np.ndarray, ways: int, size: float) -> "_Task":
        """Return the task; `size` is the norm of its embeddings."""
        dtype, count = support.dtype, len(support)
        room, ways_room = _room(count, SUPPORT), _room(ways, WAYS)
        labels = _filled(np.eye(ways, dtype=dtype)[classes], room, np.eye(ways, dtype=dtype)[0])
        mask = jnp.asarray(_filled(np.ones(count, dtype), room))
        plain = Examples(jnp.asarray(_filled(support, room)), jnp.asarray(labels), mask)
        more = ((0, 0), (0, ways_room - ways))
        start = np.pad(np.asarray(learner.start_for(plain)), ((0, ways_room - ways), (0, 1)))
        start[ways:, -1] = -KAPPA / (EPSILON * size)
        inputs = np.pad(np.asarray(plain.inputs), ((0, 0), (0, 1)), constant_values=EPSILON * size)
        return cls(
            start=jnp.asarray(start),
            examples=Examples(jnp.asarray(inputs), jnp.asarray(np.pad(labels, more)), mask),
            targets=jnp.pad(smooth_labels(plain.labels, learner.support_smoothing), more),
            real=jnp.arange(ways_room) < ways,
            horizon=float(learner.horizon_for(plain)),
        )


def _room(count: int, rooms: Sequence[int]) -> int:
    """Return the smallest room for so many, or exactly so many where none is large enough.

    >>> _room(5, (8, 20)), _room(9, (8, 20)), _room(21, (8, 20))
    (8, 20, 21)
    """
    return next((room for room in rooms if room >= count), count)


def _filled(rows: np.ndarray, room: int, by: np.ndarray | float = 0.0) -> np.ndarray:
    """Return `rows` with more of them, each equal to `by`."""
    return np.concatenate([rows, np.broadcast_to(by, (room - len(rows), *rows.shape[1:])).astype(rows.dtype)])


def _follow(learner: COMLN, task: _Task, end: float) -> tuple[FlowPath, float]:
    """Return the path to `end`, or only to the task's horizon, and where it ends."""

    def to(until: float) -> FlowPath:
        return gradient_flow_path(
            task.start,
            task.examples.inputs,
            task.targets,
            jnp.asarray(until, task.start.dtype),
            mask=task.examples.mask,
            proximal=learner.proximal,
            integrator=learner.integrator,
        )

    try:
        return to(end), end
    except RuntimeError:
        return to(task.horizon), task.horizon


def _times(horizon: float, begin: float, end: float) -> Float[np.ndarray, " time"]:
    """Return the times to read a flow at: 0, and from `begin` to `end`, `horizon` among them.

    >>> times = _times(2.0, 0.01, 100.0)
    >>> len(times), times[[0, 1, -1]].round(9).tolist(), bool(np.any(times == 2.0)), bool(np.all(np.diff(times) > 0))
    (240, [0.0, 0.01, 100.0], True, True)
    """
    beyond = np.geomspace(begin, end, TIMES - 1)
    # The nearest time makes place for the horizon.
    beyond[np.argmin(np.abs(np.log(beyond / horizon)))] = horizon
    return np.concatenate([[0.0], beyond])


@eqx.filter_jit
@at_highest_precision
def _read(
    path: FlowPath,
    support: Examples,
    targets: Float[Array, "support way"],
    real: Bool[Array, " way"],
    queries: Float[Array, "query feature"],
    times: Float[Array, " time"],
) -> tuple[Array, Array, Array, Array]:
    """Return the query logits, the probabilities of the support's own classes, the support loss and the norm."""

    def at(time: Array) -> tuple[Array, Array, Array, Array]:
        weights = path.weights_at(time)
        logits = support.inputs @ weights.T
        own = jnp.sum(support.labels * jax.nn.softmax(logits), axis=1)
        loss = support.mask @ CrossEntropy().value(logits, targets) / jnp.sum(support.mask)
        norm = jnp.linalg.norm(jnp.where(real[:, None], weights, 0.0)[:, :-1])
        return queries @ weights.T, own, loss, norm

    return jax.lax.map(at, times, batch_size=TIMES_AT_ONCE)
