r"""Linear systems with the Hessian of a linear head's loss, at the cost of one Cholesky factor a way.

The Hessian in either coordinates of `comln.flow.head_flow` is $DA U$, where $U$ takes a state to logits, $A$ is the
block-diagonal curvature of the loss and $D$ takes residuals back; $UD = G$ is the Gram matrix. For a shift $c > 0$

$$ (cI + DAU)^{-1} = \frac1c \Bigl( I - \frac1c D Q U \Bigr), \qquad Q = \Bigl( A^{-1} + \frac1c G \Bigr)^{-1} . $$

$Q$ is $MN \times MN$, but for a loss whose ways do not interact it has one block a way,
$E_n = \sqrt{a_n} (I + \sqrt{a_n} G \sqrt{a_n} / c)^{-1} \sqrt{a_n}$; and for one that does not change when the
logits of an example shift together the ways are coupled by $M$ numbers only,

$$ Q = E - E \mathbf{1} \Bigl( \sum_n E_n \Bigr)^{-1} \mathbf{1}^\top E , $$

as in Gaussian-process classification (Williams and Barber, 1998; Rasmussen and Williams, 2006, Algorithm 3.3). So a
factorisation takes $M^3N$ operations instead of $M^3N^3$, and every matrix to factor is positive definite.
"""

__all__ = ["solve_shifted_hessian"]

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from comln.losses import multiply_curvature
from comln.typing import Array, Float, Scalar

LinearMap = Callable[[Array], Array]


def _curvature_resolvent(
    scaled_gram: Float[Array, "support support"], diagonal: Float[Array, "support way"], shift_invariant: bool
) -> LinearMap:
    r"""Return $v \mapsto (A^{-1} + G/c)^{-1} v$, of shape `(support, way)`, from $G/c$ and the diagonal $a$."""
    support = scaled_gram.shape[0]
    identity = jnp.eye(support, dtype=scaled_gram.dtype)
    roots = jnp.sqrt(diagonal.T)

    def factor(root: Array) -> Array:
        lower = jnp.linalg.cholesky(identity + root[:, None] * scaled_gram * root[None, :])
        return solve_triangular(lower, jnp.diag(root), lower=True)

    factors = jax.vmap(factor)(roots)  # E_n is factors[n].T @ factors[n]

    def apply_blocks(vectors: Array) -> Array:
        return jnp.einsum("nki,nkj,jn->in", factors, factors, vectors, optimize=[(1, 2), (0, 1)])

    if not shift_invariant:
        return apply_blocks
    # An example without weight has a row and column of zeros in every block.
    idle = jnp.diag((jnp.sum(diagonal, axis=1) == 0).astype(diagonal.dtype))
    total = jnp.einsum("nki,nkj->ij", factors, factors) + idle
    inverse_root = solve_triangular(jnp.linalg.cholesky(total), identity, lower=True)

    def apply(vectors: Array) -> Array:
        product = apply_blocks(vectors)
        coupling = inverse_root.T @ (inverse_root @ jnp.sum(product, axis=1))
        return product - apply_blocks(jnp.broadcast_to(coupling[:, None], vectors.shape))

    return apply


def solve_shifted_hessian(
    shift: Scalar,
    diagonal: Float[Array, "support way"],
    shift_invariant: bool,
    to_logits: LinearMap,
    from_residuals: LinearMap,
    gram: Float[Array, "support support"],
) -> tuple[LinearMap, LinearMap]:
    r"""Return $b \mapsto (cI + DAU)^{-1}b$ and $b \mapsto (cI + DAU)^{-\top}b$, differentiable in all that goes in.

    **Arguments:**
    - `shift`: $c > 0$.
    - `diagonal`: $a$, the diagonal of the curvature with the weights of the examples, $a \ge 0$.
    - `shift_invariant`: whether $A_m = \mathrm{diag}(a_m) - a_m a_m^\top / \sum_n a_{mn}$, rather than its first term.
    - `to_logits`, `from_residuals`: $U$ and $D$.
    - `gram`: $G = UD$; used to solve, not to differentiate.

    **Example:** one example, one way, $G = a = c = 1$: half of the right-hand side.

    >>> one = jnp.ones((1, 1))
    >>> solve, _ = solve_shifted_hessian(jnp.ones(()), one, False, lambda x: x, lambda x: x, one)
    >>> round(float(solve(one)[0, 0]), 6)
    0.5
    """
    constant = jax.lax.stop_gradient
    fixed_shift, fixed_diagonal = constant(shift), constant(diagonal)
    scale = 1 / fixed_shift
    resolve = _curvature_resolvent(scale * constant(gram), fixed_diagonal, shift_invariant)

    def multiply(vector: Array) -> Array:
        return shift * vector + from_residuals(multiply_curvature(diagonal, to_logits(vector), shift_invariant))

    def transposed(linear: LinearMap, vector: Array, like: Array) -> Array:
        return jax.linear_transpose(linear, like)(vector)[0]

    def solve(vector: Array) -> Array:
        return scale * (vector - scale * from_residuals(resolve(to_logits(vector))))

    def solve_transposed(vector: Array) -> Array:
        residuals = transposed(from_residuals, vector, fixed_diagonal)
        return scale * (vector - scale * transposed(to_logits, resolve(residuals), vector))

    def differentiable(vector: Array) -> Array:
        return jax.lax.custom_linear_solve(multiply, vector, lambda _, b: solve(b), lambda _, b: solve_transposed(b))

    return differentiable, solve_transposed
