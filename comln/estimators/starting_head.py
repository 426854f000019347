"""Where a classifier's flow begins: zero, weights of one's own, or the head that a run has meta-learned."""

__all__ = ["StartingHead", "starting_head"]

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


class StartingHead(NamedTuple):
    r"""A head in a user's features.

    - `weights`: $W_0$, shape `(way, feature)`; `None` for zeros.
    - `horizon`: the horizon that was learned with it, if any.
    """

    weights: np.ndarray | None
    horizon: float | None


def starting_head(initial: Any, ways: int, features: int, pulled: bool = False) -> StartingHead:
    """Return the head that `initial` means for this many ways and features, or raise `ValueError`.

    - `initial`: `"zeros"`; an array of shape `(way, feature)`, for two ways also `(1, feature)`, as `coef_` has it; a
      `comln.run.Run`, or the path of one.
    - `pulled`: whether the flow has a proximal term of its own.

    >>> starting_head("zeros", 3, 4).weights is None
    True
    >>> starting_head([[2.0, 4.0]], 2, 2).weights.tolist()
    [[-1.0, -2.0], [1.0, 2.0]]
    """
    if isinstance(initial, str) and initial == "zeros":
        return StartingHead(None, None)
    if not isinstance(initial, np.ndarray | jax.Array | list | tuple):
        return _of_run(initial, ways, features, pulled)
    weights = np.asarray(initial, np.float64)
    if ways == 2 and weights.shape == (1, features):
        weights = np.concatenate([-weights, weights]) / 2
    if weights.shape != (ways, features):
        raise ValueError(
            f"`initial` must have a row for each of {ways} classes and a column for each of {features} features, got "
            f"shape {weights.shape}."
        )
    if not np.all(np.isfinite(weights)):
        raise ValueError("`initial` must hold finite numbers.")
    return StartingHead(weights, None)


def _of_run(initial: Any, ways: int, features: int, pulled: bool) -> StartingHead:
    # Imported here: a run needs much that an estimator does not.
    from comln.learners.comln import COMLN, InitialHead
    from comln.run import Run, load_run

    run = load_run(initial) if isinstance(initial, str | Path) else initial
    if not isinstance(run, Run):
        raise ValueError(f'`initial` must be "zeros", an array, a run or the path of a run, got {type(run).__name__}.')
    learner = run.learner
    if not isinstance(learner, COMLN) or learner.initial_head is InitialHead.PROTOTYPES:
        raise ValueError(
            "`initial` must be a run of the learner comln that starts from learned weights or zero, got one of "
            f"{type(learner).__name__}. Pass the weights to start from as an array."
        )
    size = learner.backbone.embedding_size
    if size != features:
        raise ValueError(
            f"The run of `initial` makes embeddings of {size} numbers, but X has {features} features. Pass embeddings "
            "that this run has made."
        )
    notes = [learner.ways_note(ways)]
    if learner.proximal > 0 and not pulled:
        notes.append(
            f"The run moves with a proximal term, this flow with none: pass proximal={learner.proximal:g} and "
            "standardize=False."
        )
    if learner.support_smoothing > 0:
        notes.append("The run smooths the labels of its support; this flow takes them as they are.")
    if learner.task_horizon is not None:
        notes.append("The run has a horizon for each task; this flow takes the one that they share.")
    for note in filter(None, notes):
        warnings.warn(note, UserWarning, stacklevel=5)
    learned = learner.initial_weights
    weights = np.asarray(learned, np.float64) if learned is not None and len(learned) == ways else None
    return StartingHead(weights, float(learner.horizon))
