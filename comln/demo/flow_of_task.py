r"""What the page shows of one task: everything that changes along the flow, at many times, from one solve."""

__all__ = ["TIMES", "FlowOfTask", "flow_of_task", "padded_size"]

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.episode import Examples
from comln.flow.gradient_flow_path import FlowPath
from comln.flow.highest_precision import at_highest_precision
from comln.learners import COMLN
from comln.learners.base import smooth_labels
from comln.losses import CrossEntropy
from comln.typing import Array, Float, Int

TIMES = 240
"""How many times a flow is read at."""
TIMES_AT_ONCE = 24
SMALLEST_SIZE = 16


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
    times mean nothing without them. Where it cannot be followed so far, it ends at $T$. Examples are padded, so that
    tasks of similar sizes share compiled code.

    **Raises:** `ValueError` or `RuntimeError` where the flow cannot be followed, with the reason.
    """
    room, count = padded_size(len(support)), len(support)
    dtype = support.dtype
    examples = Examples(
        jnp.asarray(_padded(support, room)),
        jax.nn.one_hot(_padded(classes, room), ways, dtype=dtype),
        jnp.asarray(_padded(np.ones(count, dtype), room)),
    )
    horizon = float(learner.horizon_for(examples))
    if not 0 < horizon < np.inf:
        raise ValueError(f"The learned T is {horizon}: this run went astray. Train again, with smaller steps for T.")
    natural = 1 / max(float(np.mean(np.sum(np.square(support), axis=1))), 1e-12)
    end = max(10 * horizon, 100 * natural)
    try:
        path = learner.path_for(jnp.asarray(end, dtype), examples)
    except RuntimeError:
        end = horizon
        path = learner.path_for(jnp.asarray(end, dtype), examples)
    times = np.minimum(_times(horizon, min(horizon, natural) / 100, end).astype(dtype), np.asarray(path.horizon))
    query_room = jnp.asarray(_padded(queries, padded_size(len(queries))))
    read = _read(path, learner.support_smoothing, examples, query_room, jnp.asarray(times))
    logits, probabilities, loss, norm = map(np.asarray, read)
    if not all(np.all(np.isfinite(x)) for x in (loss, norm, logits)):
        raise RuntimeError("The flow of this task left the numbers that this precision holds.")
    return FlowOfTask(
        horizon=horizon,
        times=times,
        query_logits=logits[:, : len(queries)],
        support_probabilities=probabilities[:, :count],
        support_loss=loss,
        norm=norm,
        steps=int(path.info.steps),
    )


def padded_size(count: int) -> int:
    """Return for how many examples there is room: a power of two.

    >>> [padded_size(count) for count in (0, 5, 16, 17)]
    [16, 16, 16, 32]
    """
    return max(SMALLEST_SIZE, 1 << max(count - 1, 0).bit_length())


def _padded(rows: np.ndarray, room: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((room - len(rows), *rows.shape[1:]), rows.dtype)])


def _times(horizon: float, begin: float, end: float) -> Float[np.ndarray, " time"]:
    """Return the times to read a flow at: 0, and from `begin` to `end`, `horizon` among them.

    >>> times = _times(2.0, 0.01, 100.0)
    >>> len(times), times[0], round(times[-1], 9), bool(np.any(times == 2.0)), bool(np.all(np.diff(times) > 0))
    (240, 0.0, 100.0, True, True)
    """
    beyond = np.geomspace(begin, end, TIMES - 1)
    # The nearest time makes place for the horizon.
    beyond[np.argmin(np.abs(np.log(beyond / horizon)))] = horizon
    return np.concatenate([[0.0], beyond])


@eqx.filter_jit
@at_highest_precision
def _read(
    path: FlowPath,
    smoothing: float,
    support: Examples,
    queries: Float[Array, "query feature"],
    times: Float[Array, " time"],
) -> tuple[Array, Array, Array, Array]:
    """Return the query logits, the probabilities of the support's own classes, the support loss and the norm."""
    labels = smooth_labels(support.labels, smoothing)

    def at(time: Array) -> tuple[Array, Array, Array, Array]:
        weights = path.weights_at(time)
        logits = support.inputs @ weights.T
        own = jnp.sum(support.labels * jax.nn.softmax(logits), axis=1)
        loss = support.mask @ CrossEntropy().value(logits, labels) / jnp.sum(support.mask)
        return queries @ weights.T, own, loss, jnp.linalg.norm(weights)

    return jax.lax.map(at, times, batch_size=TIMES_AT_ONCE)
