"""Ridge regression to the labels, in closed form (Hoerl and Kennard, 1970; Bertinetto et al., 2019)."""

__all__ = ["ridge", "ridge_dual", "ridge_primal"]

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve

from comln.typing import Array, Float, ScalarLike


def ridge(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
) -> Float[Array, "way feature"]:
    r"""Return the weights that minimise the squared error and their own squared norm,

    $$ \operatorname*{arg\,min}_W \sum_m w_m \lVert W\phi_m - y_m \rVert^2 + \lambda \lVert W \rVert^2 . $$

    Of the two forms of the solution it takes the smaller system. Differentiable in `embeddings`, `labels` and
    `regularisation`, not in `mask`.

    **Arguments:**
    - `embeddings`: $\phi_m$, shape `(support, feature)`.
    - `labels`: $y_m$, any targets, shape `(support, way)`.
    - `mask`: $w_m \ge 0$, shape `(support,)`. A row of weight zero has no effect, whatever stands in it.
    - `regularisation`: $\lambda > 0$. It is weighed against a sum over the examples, not a mean.

    R2D2 (Bertinetto et al., 2019) divides embeddings and targets by the root of the number of examples $M$; with its
    regularisation times $M$ these are its weights. The ridge head of MetaOptNet (Lee et al., 2019) has twice them.

    **Example:** two points at $\pm 1$, so $w = \pm 1 / (2 + \lambda)$.

    >>> ridge(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2), 2.0).tolist()
    [[0.25], [-0.25]]
    """
    support, feature = embeddings.shape
    form = ridge_primal if support >= feature else ridge_dual
    return form(embeddings, labels, mask, regularisation)


def ridge_primal(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
) -> Float[Array, "way feature"]:
    r"""Return the weights of `ridge` as $W^\top = (X^\top X + \lambda I)^{-1} X^\top Y$.

    The rows of $X$ and $Y$ are $\sqrt{w_m} \phi_m$ and $\sqrt{w_m} y_m$.

    >>> ridge_primal(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2), 2.0).tolist()
    [[0.25], [-0.25]]
    """
    points, targets = _weigh(embeddings, labels, mask)
    with jax.default_matmul_precision("highest"):
        return solve(_shift(points.T @ points, regularisation), points.T @ targets, assume_a="pos").T


def ridge_dual(
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    mask: Float[Array, " support"],
    regularisation: ScalarLike,
) -> Float[Array, "way feature"]:
    r"""Return the weights of `ridge` as $W^\top = X^\top (XX^\top + \lambda I)^{-1} Y$, by Woodbury's identity.

    The rows of $X$ and $Y$ are $\sqrt{w_m} \phi_m$ and $\sqrt{w_m} y_m$.

    >>> ridge_dual(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2), 2.0).round(6).tolist()
    [[0.25], [-0.25]]
    """
    points, targets = _weigh(embeddings, labels, mask)
    with jax.default_matmul_precision("highest"):
        return solve(_shift(points @ points.T, regularisation), targets, assume_a="pos").T @ points


def _weigh(embeddings: Array, labels: Array, mask: Array) -> tuple[Array, Array]:
    """Return embeddings and labels times the roots of their weights, and zeros where there is no weight."""
    roots = jnp.sqrt(jax.lax.stop_gradient(mask))[:, None]
    # Selected and not multiplied: what stands in padding may not be finite.
    return roots * jnp.where(roots > 0, embeddings, 0.0), roots * jnp.where(roots > 0, labels, 0.0)


def _shift(gram: Array, regularisation: ScalarLike) -> Array:
    """Return the matrix with the regularisation added to its diagonal."""
    return gram + jnp.asarray(regularisation, gram.dtype) * jnp.eye(len(gram), dtype=gram.dtype)
