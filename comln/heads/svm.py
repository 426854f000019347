r"""The support vector machine for many classes (Crammer and Singer, 2001), as MetaOptNet's head (Lee et al., 2019).

In units of the bound, $a = \alpha / C$, its dual problem is

$$ \min_a \tfrac12 \langle a, Qa \rangle - \langle Y, a \rangle \quad \text{such that} \quad a + s = H, \; s \ge 0, \;
a \mathbf 1 = 0, $$

with $Q = C(K + \rho I)$ and caps $H = w \odot Y$. With multipliers $\mu \ge 0$ for the caps and $\nu$ for the sums, the
solution is where $Qa - Y + \mu + \nu \mathbf 1^\top$, the sums and every product $s\mu$ are zero. A Newton step towards
products $s\mu$ of another size has, in way $n$ with $D_n = \mathrm{diag}(\mu_n / s_n)$,

$$ (Q + D_n) \dot a_n + \dot\nu = b_n, \qquad \textstyle\sum_n \dot a_n = e . $$

The ways are coupled by $M$ numbers only, so that instead of a system of $MN$ unknowns it takes one Cholesky factor of
$M$ unknowns a way, and one of their Schur complement $S$:

$$ S = \sum_n (Q + D_n)^{-1}, \qquad \dot\nu = S^{-1} \Bigl( \sum_n (Q + D_n)^{-1} b_n - e \Bigr), \qquad
\dot a_n = (Q + D_n)^{-1} (b_n - \dot\nu) . $$

The same system gives the derivative: where $Q$ moves, $b_n = -\dot Q a_n$ and $e = 0$.
"""

__all__ = ["svm", "svm_dual"]

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from comln.typing import Array, Float, Int, ScalarLike

KEPT_STEP = 0.99
"""How far towards the next boundary a step may go."""


def svm(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    bound: ScalarLike = 0.1,
    ridge: ScalarLike = 1.0,
    iterations: int = 15,
) -> Float[Array, "way feature"]:
    r"""Return the weights $W = \alpha^\top \Phi$ of a support vector machine, with $\alpha$ from `svm_dual`.

    Its kernel is $K = \Phi\Phi^\top$. Differentiable in `embeddings`, `bound` and `ridge`, once, in reverse mode; not
    in `labels` and `mask`.

    **Arguments:**
    - `embeddings`: $\phi_m$, the rows of $\Phi$, shape `(support, feature)`. There is no bias.
    - `labels`, `mask`, `bound`, `ridge`, `iterations`: as in `svm_dual`, and with the defaults of MetaOptNet.

    **Example:** two points at $\pm 1$, so $w = \pm 2 \min(C, 1 / (4 + 2\rho))$.

    >>> points = jnp.array([[1.0], [-1.0]])
    >>> svm(points, jnp.eye(2), jnp.ones(2)).round(5).tolist()
    [[0.2], [-0.2]]
    >>> svm(points, jnp.eye(2), jnp.ones(2), bound=1.0, ridge=2.0).round(5).tolist()
    [[0.25], [-0.25]]
    """
    # Selected and not multiplied: what stands in padding may not be finite.
    embeddings = jnp.where(mask[:, None] > 0, embeddings, 0.0)
    with jax.default_matmul_precision("highest"):
        coefficients = svm_dual(embeddings @ embeddings.T, labels, mask, bound, ridge, iterations)
        return coefficients.T @ embeddings


def svm_dual(
    kernel: Float[Array, "support support"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    bound: ScalarLike = 0.1,
    ridge: ScalarLike = 1.0,
    iterations: int = 15,
) -> Float[Array, "support way"]:
    r"""Return the dual variables of the support vector machine of Crammer and Singer (2001),

    $$ \operatorname*{arg\,min}_\alpha \tfrac12 \langle \alpha, (K + \rho I) \alpha \rangle - \langle Y, \alpha \rangle
    \quad \text{such that} \quad \alpha_{mn} \le C w_m y_{mn}, \; \textstyle\sum_n \alpha_{mn} = 0 . $$

    It is solved by Mehrotra's (1992) interior-point method, and differentiated at the solution: the iterations leave
    no graph. Differentiable in `kernel`, `bound` and `ridge`, once, in reverse mode; not in `labels` and `mask`.

    **Arguments:**
    - `kernel`: $K$, symmetric and positive semi-definite, shape `(support, support)`.
    - `labels`: $y$, one-hot or smoothed, shape `(support, way)`.
    - `mask`: $w_m \ge 0$, shape `(support,)`. A row without weight, or without a label, has no effect, and is zero in
      the result.
    - `bound`: $C > 0$. The smaller, the more examples support the solution.
    - `ridge`: $\rho \ge 0$; positive unless the kernel is positive definite.
    - `iterations`: how many steps the method takes at most. Fifteen solve 25 examples of five ways to the precision of
      their type, for squared norms from 0.01 to 10,000; with fewer the derivative is that of a smoother problem.

    The result is piecewise linear in `bound` and piecewise smooth in `kernel`: where an example is about to reach or
    leave a bound the derivative jumps, and the one returned lies between its two sides.

    **Example:** two points at $\pm 1$, so $\alpha = \pm \min(C, 1 / (4 + 2\rho))$.

    >>> kernel = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> svm_dual(kernel, jnp.eye(2), jnp.ones(2), bound=1.0, ridge=3.0).round(5).tolist()
    [[0.1, -0.1], [-0.1, 0.1]]
    """
    labels, mask = jax.lax.stop_gradient((labels, mask))
    bound, ridge = jnp.asarray(bound, kernel.dtype), jnp.asarray(ridge, kernel.dtype)
    present = (mask > 0) & jnp.any(labels > 0, axis=1)
    kernel = jnp.where(present[:, None] & present[None, :], kernel, 0.0)
    labels = jnp.where(present[:, None], labels, 0.0)
    caps = jnp.where(present, mask, 0.0)[:, None] * labels
    hessian = bound * (kernel + ridge * jnp.eye(len(kernel), dtype=kernel.dtype))
    return bound * _solve_in_units_of_the_bound(hessian, labels, caps, jnp.asarray(iterations, jnp.int32))


class _Point(NamedTuple):
    r"""Where the method stands: $a$, its slack $s = H - a$, and the multipliers $\mu$ and $\nu$.

    The slack is carried along and never computed as the difference it is: near a cap only its own digits count, and
    with them single precision suffices.
    """

    solution: Float[Array, "support way"]
    slack: Float[Array, "support way"]
    multipliers: Float[Array, "support way"]
    levels: Float[Array, " support"]


@jax.custom_vjp
def _solve_in_units_of_the_bound(
    hessian: Float[Array, "support support"],
    labels: Float[Array, "support way"],
    caps: Float[Array, "support way"],
    iterations: Int[Array, ""],
) -> Float[Array, "support way"]:
    r"""Return $a$, with its derivative in $Q$ alone."""
    return _interior_point(hessian, labels, caps, iterations).solution


def _forward(hessian: Array, labels: Array, caps: Array, iterations: Array) -> tuple[Array, tuple[Array, _Point]]:
    point = _interior_point(hessian, labels, caps, iterations)
    return point.solution, (hessian, point)


def _backward(kept: tuple[Array, _Point], cotangent: Array) -> tuple[Array, None, None, None]:
    hessian, point = kept
    with jax.default_matmul_precision("highest"):
        pulled_back, _ = _newton_system(hessian, point)(cotangent, jnp.zeros_like(point.levels))
        product = pulled_back @ point.solution.T
    return -(product + product.T) / 2, None, None, None


_solve_in_units_of_the_bound.defvjp(_forward, _backward)


def _newton_system(hessian: Array, point: _Point) -> Callable[[Array, Array], tuple[Array, Array]]:
    r"""Return the map from $b$ and $e$ to $\dot a$ and $\dot\nu$."""
    identity = jnp.eye(len(hessian), dtype=hessian.dtype)

    def inverse_factor(diagonal: Array) -> Array:
        return solve_triangular(jnp.linalg.cholesky(hessian + jnp.diag(diagonal)), identity, lower=True)

    factors = jax.vmap(inverse_factor, in_axes=1)(point.multipliers / point.slack)
    schur = jnp.einsum("nki,nkj->ij", factors, factors)
    schur_factor = solve_triangular(jnp.linalg.cholesky(schur), identity, lower=True)

    def apply_inverses(vectors: Array) -> Array:
        return jnp.einsum("nki,nkj,jn->in", factors, factors, vectors, optimize=[(1, 2), (0, 1)])

    def solve(right: Array, sums: Array) -> tuple[Array, Array]:
        free = apply_inverses(right)
        levels = schur_factor.T @ (schur_factor @ (jnp.sum(free, axis=1) - sums))
        return free - apply_inverses(jnp.broadcast_to(levels[:, None], right.shape)), levels

    return solve


def _start(hessian: Array, caps: Array) -> _Point:
    r"""Return an interior point whose sums are zero and whose products $s\mu$ are equal, in the units of the problem.

    Newton's steps do not depend on units, so with such a start neither do their number and their precision.
    """
    weights = jnp.sum(caps, axis=1, keepdims=True)
    present = weights > 0
    unit = jnp.minimum(1.0, 1 / jnp.max(jnp.diag(hessian)))  # the size of a solution that the caps, or Q, hold back
    shares = caps / jnp.where(present, weights, 1.0) - 1 / caps.shape[1]
    solution = jnp.where(present, jnp.minimum(unit, weights) * shares, 0.0)
    slack = jnp.where(present, caps - solution, 1.0)
    multipliers = jnp.where(present, unit / slack, 1.0)
    return _Point(solution, slack, multipliers, jnp.zeros_like(solution[:, 0]))


def _interior_point(hessian: Array, labels: Array, caps: Array, iterations: Array) -> _Point:
    """Follow Mehrotra's (1992) predictor and corrector for so many iterations, or until there is nothing to gain."""
    present = (jnp.sum(caps, axis=1, keepdims=True) > 0).astype(caps.dtype)
    count = jnp.maximum(jnp.sum(present), 1.0) * caps.shape[1]
    start = _start(hessian, caps)

    def mean_product(slack: Array, multipliers: Array) -> Array:
        return jnp.sum(present * slack * multipliers) / count

    # Far below the precision of the solution, but quotients of slack and multipliers are still within range.
    smallest = jnp.sqrt(jnp.finfo(caps.dtype).tiny) * mean_product(start.slack, start.multipliers)

    def unfinished(state: tuple[Array, _Point]) -> Array:
        step, point = state
        return (step < iterations) & (mean_product(point.slack, point.multipliers) > smallest)

    def iterate(state: tuple[Array, _Point]) -> tuple[Array, _Point]:
        step, point = state
        solution, slack, multipliers, levels = point
        solve = _newton_system(hessian, point)
        gap = mean_product(slack, multipliers)
        slope = labels - hessian @ solution - levels[:, None]

        def direction(excess: Array) -> _Point:
            r"""Return the step towards $s\mu$ less its value and `excess`."""
            right = present * (slope + excess / slack)
            change, level_change = solve(right, -jnp.sum(solution, axis=1))
            pull = present * ((multipliers * change - excess) / slack - multipliers)
            return _Point(change, -change, pull, level_change)

        predictor = direction(jnp.zeros_like(slack))
        size = jnp.minimum(1.0, _room(point, predictor))
        reached = mean_product(slack + size * predictor.slack, multipliers + size * predictor.multipliers)
        centring = (reached / gap) ** 3 * gap
        corrector = direction(predictor.slack * predictor.multipliers - centring)
        size = jnp.minimum(1.0, KEPT_STEP * _room(point, corrector))
        return step + 1, jax.tree.map(lambda now, change: now + size * change, point, corrector)

    with jax.default_matmul_precision("highest"):
        return jax.lax.while_loop(unfinished, iterate, (jnp.zeros((), jnp.int32), start))[1]


def _room(point: _Point, step: _Point) -> Array:
    """Return how many such steps lead to where the first slack or multiplier is zero."""

    def room(values: Array, changes: Array) -> Array:
        falling = changes < 0
        return jnp.min(jnp.where(falling, values / jnp.where(falling, -changes, 1.0), jnp.inf))

    return jnp.minimum(room(point.slack, step.slack), room(point.multipliers, step.multipliers))
