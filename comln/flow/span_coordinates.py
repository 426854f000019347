r"""The flow in the span of the support embeddings, and the paper's sensitivities in the same coordinates.

The gradient of a linear head's loss is $\sum_m r_m \phi_m^\top$ (Böhning, 1992), so the flow never leaves
$W_0 + \mathrm{span}\{\phi_m\}$ and $W(t) = W_0 - s(t)^\top\Phi$. Nothing here depends on the embedding size: the
embeddings enter only through their Gram matrix $G = \Phi\Phi^\top$ and the initial logits $\Phi W_0^\top$.

| here | paper |
|---|---|
| `coefficients` | $s$, shape `(support, way)` |
| `propagator` | $B$, shape `(support, support, way, way)` |
| `feature_sensitivity` | $z$, shape `(support, support, support, way)` |
| `gram` | $\phi_i^\top\phi_j$ |
| `curvature` | $A_m$, shape `(support, way, way)` |
| `share` | $1/M$ for each example; $w_m / \sum w$ with weights $w$ |
| `proximal` | $\lambda$ of equation 14 |

The equations are those of Propositions 1 to 3 (Deleu et al., 2022); in Proposition 3 the proximal term stands outside
$A_i$, where its derivation puts it (erratum E1).
"""

__all__ = [
    "coefficient_rate",
    "feature_sensitivity_rate",
    "flow_curvature",
    "flow_logits",
    "logit_unit",
    "propagator_rate",
    "weights_from_coefficients",
]

import jax
import jax.numpy as jnp

from comln.losses import AbstractLoss
from comln.typing import Array, Float, Scalar


def flow_logits(
    coefficients: Float[Array, "support way"],
    gram: Float[Array, "support support"],
    initial_logits: Float[Array, "support way"],
) -> Float[Array, "support way"]:
    r"""Return the support logits at `coefficients`: $\Phi W^\top = \Phi W_0^\top - G s$."""
    return initial_logits - gram @ coefficients


def coefficient_rate(
    coefficients: Float[Array, "support way"],
    gram: Float[Array, "support support"],
    initial_logits: Float[Array, "support way"],
    labels: Float[Array, "support way"],
    share: Float[Array, " support"],
    proximal: Scalar,
    loss: AbstractLoss,
) -> Float[Array, "support way"]:
    r"""Return $\dot s_m = w_m \ell'(\eta_m, y_m) - \lambda s_m$, with $w_m$ the `share` (Proposition 1).

    For the cross-entropy $\ell'(\eta_m, y_m) = p_m - y_m$.
    """
    logits = flow_logits(coefficients, gram, initial_logits)
    return share[:, None] * loss.gradient(logits, labels) - proximal * coefficients


def flow_curvature(
    logits: Float[Array, "support way"],
    labels: Float[Array, "support way"],
    share: Float[Array, " support"],
    loss: AbstractLoss,
) -> Float[Array, "support way way"]:
    r"""Return $A_m = w_m \ell''(\eta_m, y_m)$ (Lemma 1).

    For the cross-entropy $A_m = (\mathrm{diag}(p_m) - p_m p_m^\top)/M$.
    """
    return share[:, None, None] * loss.curvature(logits, labels)


def propagator_rate(
    propagator: Float[Array, "support support way way"],
    curvature: Float[Array, "support way way"],
    gram: Float[Array, "support support"],
    proximal: Scalar,
) -> Float[Array, "support support way way"]:
    r"""Return $\dot B[i,j] = A_i \bigl(\delta_{ij} I - \sum_m G_{im} B[m,j]\bigr) - \lambda B[i,j]$ (Proposition 2).

    The product with $G$ is taken first: $M^3 N^2$ operations.
    """
    support, way = curvature.shape[:2]
    identity = jnp.eye(support, dtype=gram.dtype)[:, :, None, None] * jnp.eye(way, dtype=gram.dtype)[None, None]
    pulled_back = identity - jnp.einsum("im,mjnl->ijnl", gram, propagator)
    return jnp.einsum("ikn,ijnl->ijkl", curvature, pulled_back) - proximal * propagator


def feature_sensitivity_rate(
    feature_sensitivity: Float[Array, "support support support way"],
    coefficients: Float[Array, "support way"],
    curvature: Float[Array, "support way way"],
    gram: Float[Array, "support support"],
    proximal: Scalar,
) -> Float[Array, "support support support way"]:
    r"""Return the rate of $z$ (Proposition 3, corrected: the proximal term is outside $A_i$).

    $$ \dot z[i,j,m] = -A_i \Bigl( \delta_{ij} s_m + \delta_{im} s_j + \sum_k G_{ik} z[k,j,m] \Bigr)
       - \lambda z[i,j,m] $$

    The product with $G$ is taken first: $M^4 N$ operations.
    """
    support = gram.shape[0]
    delta = jnp.eye(support, dtype=gram.dtype)
    forcing = (
        delta[:, :, None, None] * coefficients[None, None, :, :]
        + delta[:, None, :, None] * coefficients[None, :, None, :]
    )
    pulled_back = forcing + jnp.einsum("ik,kjmn->ijmn", gram, feature_sensitivity)
    return -jnp.einsum("iln,ijmn->ijml", curvature, pulled_back) - proximal * feature_sensitivity


def weights_from_coefficients(
    initial_weights: Float[Array, "way feature"],
    coefficients: Float[Array, "support way"],
    embeddings: Float[Array, "support feature"],
) -> Float[Array, "way feature"]:
    r"""Return $W = W_0 - s^\top \Phi$ (Proposition 1)."""
    return initial_weights - coefficients.T @ embeddings


def logit_unit(gram: Float[Array, "support support"], share: Float[Array, " support"]) -> Scalar:
    r"""Return $c^2 = \sum_m w_m G_{mm}$, the mean squared norm of the support embeddings, or 1 where that is zero.

    For any $c > 0$, $G' = G/c^2$, $t' = c^2 t$ and $\lambda' = \lambda/c^2$ give the same flow with $s' = c^2 s$,
    $B' = c^2 B$ and $z' = c^4 z$. With this $c$ the coordinates change logits by as much as they change themselves, so
    that a tolerance on them is a tolerance on logits. The result does not depend on $c$, so it carries no gradient.

    >>> float(logit_unit(jnp.diag(jnp.array([3.0, 5.0])), jnp.array([0.5, 0.5])))
    4.0
    """
    mean_square = jax.lax.stop_gradient(jnp.sum(share * jnp.diagonal(gram)))
    return jnp.where(mean_square > 0, mean_square, jnp.ones_like(mean_square))
