"""Logistic regression of every way against the others, by Newton's method (Bertinetto et al., 2019)."""

__all__ = ["newton_logistic", "newton_logistic_dual", "newton_logistic_primal"]

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve

from comln.losses import SigmoidCrossEntropy
from comln.typing import Array, Float, ScalarLike

LARGEST_LOGIT = 80.0
"""Where a curvature, e^-80, is zero beside any regularisation, and its inverse root still far from overflow."""


def newton_logistic(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
    iterations: int,
) -> Float[Array, "way feature"]:
    r"""Take Newton's steps from zero towards the minimum, for each way $n$ by itself, of

    $$ \sum_m w_m \bigl( \log(1 + e^{\eta_{mn}}) - y_{mn} \eta_{mn} \bigr) + \frac\lambda2 \lVert W_n \rVert^2,
    \qquad \eta = \Phi W^\top, $$

    the head of LRD2 (Bertinetto et al., 2019). With $s = w \odot \sigma(\eta) \odot \sigma(-\eta)$ a step is the
    weighted least-squares problem

    $$ W_n \leftarrow (\Phi^\top \mathrm{diag}(s) \Phi + \lambda I)^{-1} \Phi^\top
    \bigl( s \odot \eta + w \odot (y - \sigma(\eta)) \bigr), $$

    whose smaller form is solved: one of `feature` or of `support` unknowns. Differentiable in `embeddings`, `labels`
    and `regularisation`, through all the steps; not in `mask`.

    **Arguments:**
    - `embeddings`: $\phi_m$, the rows of $\Phi$, shape `(support, feature)`. For a bias, append a one to each.
    - `labels`: $y$ in $[0, 1]$, shape `(support, way)`.
    - `mask`: $w_m \ge 0$, shape `(support,)`. A row of weight zero has no effect, whatever stands in it.
    - `regularisation`: $\lambda > 0$. It is weighed against a sum over the examples, not a mean.
    - `iterations`: how many steps. They are whole Newton steps without a line search, so with a small $\lambda$ they
      need not descend.

    **Example:** two points at $\pm 1$. The minimum has $\lambda w = 2 \sigma(-w)$; this $\lambda$ makes $w = \pm 1$.

    >>> points, regularisation = jnp.array([[1.0], [-1.0]]), 2 / (1 + jnp.exp(1.0))
    >>> newton_logistic(points, jnp.eye(2), jnp.ones(2), regularisation, 10).round(5).tolist()
    [[1.0], [-1.0]]
    """
    support, feature = embeddings.shape
    form = newton_logistic_primal if support >= feature else newton_logistic_dual
    return form(embeddings, labels, mask, regularisation, iterations)


def newton_logistic_primal(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
    iterations: int,
) -> Float[Array, "way feature"]:
    r"""Return the weights of `newton_logistic`, with `feature` unknowns a way and a step.

    >>> newton_logistic_primal(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2), 0.5, 1).tolist()
    [[1.0], [-1.0]]
    """
    points, labels, mask = _without_padding(embeddings, labels, mask)
    shift = _shift(points.shape[1], regularisation, points.dtype)
    loss = SigmoidCrossEntropy()

    def step(weights: Array, labels: Array) -> Array:
        logits = points @ weights
        curvature = mask * loss.curvature_diagonal(logits[:, None], labels[:, None])[:, 0]
        residuals = mask * loss.gradient(logits[:, None], labels[:, None])[:, 0]
        hessian = points.T @ (curvature[:, None] * points) + shift
        return solve(hessian, points.T @ (curvature * logits - residuals), assume_a="pos")

    return _iterate(step, points.shape[1], labels, iterations)


def newton_logistic_dual(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
    iterations: int,
) -> Float[Array, "way feature"]:
    r"""Return the weights of `newton_logistic`, with `support` unknowns a way and a step.

    They are $W_n = \Phi^\top c$, and with $K = \Phi\Phi^\top$, $\eta = Kc$ and $r = \sqrt s$ a step is

    $$ c \leftarrow r \odot (rr^\top \odot K + \lambda I)^{-1} (r \odot \eta + \gamma), \qquad
    \gamma = \frac{w \odot (y - \sigma(\eta))}{r}
    = \sqrt w \odot \bigl( y \odot e^{-\eta/2} - (1 - y) \odot e^{\eta/2} \bigr) . $$

    The last form divides by nothing. A saturated logit has a small $r$, but $r \odot \gamma$ is what it should be.

    >>> newton_logistic_dual(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2), 0.5, 1).round(5).tolist()
    [[1.0], [-1.0]]
    """
    points, labels, mask = _without_padding(embeddings, labels, mask)
    shift = _shift(len(points), regularisation, points.dtype)
    weight_roots = jnp.sqrt(mask)
    with jax.default_matmul_precision("highest"):
        gram = points @ points.T

    def step(coefficients: Array, labels: Array) -> Array:
        halves = jnp.clip(gram @ coefficients, -LARGEST_LOGIT, LARGEST_LOGIT) / 2
        up, down = jnp.exp(halves), jnp.exp(-halves)
        roots = weight_roots / (up + down)
        right = roots * (2 * halves) + weight_roots * (labels * down - (1 - labels) * up)
        return roots * solve(roots[:, None] * gram * roots[None, :] + shift, right, assume_a="pos")

    coefficients = _iterate(step, len(points), labels, iterations)
    with jax.default_matmul_precision("highest"):
        return coefficients @ points


def _iterate(step: Callable[[Array, Array], Array], size: int, labels: Array, iterations: int) -> Array:
    """Return the state of each way after so many steps from zero."""

    def follow(labels: Array) -> Array:
        start = jnp.zeros(size, labels.dtype)
        return jax.lax.scan(lambda state, _: (step(state, labels), None), start, length=iterations)[0]

    with jax.default_matmul_precision("highest"):
        return jax.vmap(follow, in_axes=1)(labels)


def _without_padding(embeddings: Array, labels: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Return the arguments with zeros in the rows that have no weight, and no derivative in the weights."""
    present = mask[:, None] > 0
    return jnp.where(present, embeddings, 0.0), jnp.where(present, labels, 0.0), jax.lax.stop_gradient(mask)


def _shift(size: int, regularisation: ScalarLike, dtype: jnp.dtype) -> Array:
    return jnp.asarray(regularisation, dtype) * jnp.eye(size, dtype=dtype)
