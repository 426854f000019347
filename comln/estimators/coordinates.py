r"""From a user's features to the coordinates in which the flow is followed, and back.

Three changes of coordinates, each of which leaves the logits as they are and is undone afterwards:

1. *Centre.* With an intercept $\phi = x - \mu$, where $\mu$ is the weighted mean of the examples.
2. *Scale.* $\phi = (x - \mu)/c$, with one number $c^2 = \sum_m w_m \lVert x_m - \mu \rVert^2$ for all features
   ($\sum w = 1$), so that the mean squared norm of an example is one and $T$ and $\lambda$ mean the same in any units.
   Following $W$ for $T$ in these coordinates is following it for $T/c^2$ in the old ones.
3. *Turn.* With fewer examples than features the flow never leaves the span of the examples (Böhning, 1992). With
   $A = \sqrt{w}\,\Phi = V \Lambda^{1/2} P$ the singular value decomposition of the weighted examples, their coordinates
   on the principal axes $P$ are $Z = \Phi P^\top$, at most $M$ numbers for an example, and
   $W = W_0 + (\tilde W - W_0 P^\top) P$. Taken twice or with twice the weight, an example gives the same axes. The
   decomposition costs $M^3$: of some thousand examples with hardly more features it would take longer than the flow.
"""

__all__ = ["Coordinates"]

from dataclasses import dataclass

import numpy as np

WORTH_TURNING = 800
"""Turning $M$ examples of $d$ features costs less than it saves if $M^2$ is at most this many times $d - M$.

Ten times $M^3$ operations, against four for each of $M(d - M)$ numbers, 10 ways and 200 evaluations.
"""


@dataclass(frozen=True)
class Coordinates:
    r"""Where the examples are, and the way back.

    - `examples`: their coordinates, shape `(example, coordinate)`.
    - `centre`: $\mu$, shape `(feature,)`. `scale`: $c$, or 1.
    - `axes`: $P$, shape `(coordinate, feature)`; `None` where the coordinates are the features themselves.
    - `mean_square`: the mean squared norm of `examples`; 1 where there is none.

    >>> features = np.array([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    >>> coordinates = Coordinates.of(features, np.ones(2), centred=True, scaled=True)
    >>> coordinates.centre.tolist(), coordinates.scale, np.abs(coordinates.examples).round(6).tolist()
    ([2.0, 0.0, 0.0], 1.0, [[1.0], [1.0]])
    """

    examples: np.ndarray
    centre: np.ndarray
    scale: float
    axes: np.ndarray | None
    mean_square: float

    @classmethod
    def of(
        cls, features: np.ndarray, weights: np.ndarray, centred: bool, scaled: bool, always_turned: bool = True
    ) -> "Coordinates":
        """Return the coordinates for examples with positive `weights`, in double precision.

        - `always_turned`: turn where there are fewer examples than features, rather than only where that is worth it.
        """
        features = features.astype(np.float64, copy=False)
        share = weights / np.sum(weights)
        centre = share @ features if centred else np.zeros(features.shape[1])
        moved = features - centre
        root_mean_square = _root_mean_square(moved, share)
        rounding = 4 * len(moved) ** 0.5 * np.finfo(np.float64).eps
        if root_mean_square <= _root_mean_square(rounding * centre[None], np.ones(1)):
            # All examples are the same, and what is left is rounding, which no scale may make large.
            moved, root_mean_square = np.zeros_like(moved), 0.0
        scale = root_mean_square if scaled and root_mean_square > 0 else 1.0
        if scale != 1.0:
            moved = moved / scale
        ratio = root_mean_square / scale
        mean_square = ratio * ratio if root_mean_square > 0 else 1.0
        count, size = moved.shape
        if count >= size or not (always_turned or count**2 <= WORTH_TURNING * (size - count)):
            return cls(moved, centre, scale, None, mean_square)
        root = np.sqrt(share)[:, None]
        weighted = root * moved
        squares, vectors = np.linalg.eigh(weighted @ weighted.T)
        # Axes that rounding alone has made are left out; a first one is kept even if all examples are the same.
        kept = squares > len(squares) * np.finfo(np.float64).eps * max(squares[-1], np.finfo(np.float64).tiny)
        kept[-1] = True
        lengths, vectors = np.sqrt(np.maximum(squares[kept], np.finfo(np.float64).tiny)), vectors[:, kept]
        axes = (vectors / lengths).T @ weighted
        # An axis has no sign of its own; this one depends on nothing but where the axis points.
        signs = np.sign(axes[np.arange(len(axes)), np.argmax(np.abs(axes), axis=1)])
        return cls(vectors * (signs * lengths) / root, centre, scale, signs[:, None] * axes, mean_square)

    def enter(self, weights: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a head of features, shapes `(way, feature)` and `(way,)`, as one of coordinates."""
        turned = weights if self.axes is None else weights @ self.axes.T
        return turned * self.scale, intercept + weights @ self.centre

    def leave(
        self, weights: np.ndarray, intercept: np.ndarray, start: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a head of coordinates as one of features.

        - `start`: where its flow began, in features; `None` for zeros.
        """
        if self.axes is None:
            weights = weights / self.scale
        else:
            moved = weights / self.scale
            if start is not None:
                moved = moved - start @ self.axes.T
            weights = moved @ self.axes
            if start is not None:
                weights = weights + start
        return weights, intercept - weights @ self.centre


def _root_mean_square(moved: np.ndarray, share: np.ndarray) -> float:
    """Return the root mean squared norm of the rows, also where their squares overflow or vanish."""
    with np.errstate(over="ignore", under="ignore"):
        mean_square = float(share @ np.einsum("md,md->m", moved, moved))
    if 1e-200 < mean_square < np.inf:
        return mean_square**0.5
    largest = float(np.max(np.abs(moved)))
    if largest == 0.0 or not np.isfinite(largest):
        return 0.0
    relative = moved / largest
    return largest * float(share @ np.einsum("md,md->m", relative, relative)) ** 0.5
