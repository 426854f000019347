r"""Losses of a linear head, as functions of one example's logits.

Everything that a gradient flow needs from a loss is its value, its gradient and its curvature *with respect to the
logits*; the embeddings enter only through the chain rule (Böhning, 1992). A loss is a value that is passed in
(`loss=CrossEntropy()`).
"""

__all__ = ["AbstractLoss", "CrossEntropy", "SigmoidCrossEntropy", "SquaredError"]

import abc

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.typing import Array, Bool, Float


class AbstractLoss(eqx.Module):
    r"""A convex loss $\ell(\eta, y)$ of the logits $\eta = W\phi$ and the labels $y$, row by row.

    Its curvature is one of two kinds. Either the ways do not interact, $\ell'' = \mathrm{diag}(a)$; or the loss does
    not change when all logits of a row shift together, $\ell'' = \mathrm{diag}(a) - aa^\top/\sum_n a_n$. A loss of
    one's own gives `value`, `gradient`, `curvature_diagonal` ($a$) and `shift_invariant` (which kind it is).
    """

    @property
    @abc.abstractmethod
    def shift_invariant(self) -> bool:
        """Whether the loss stays the same when all logits of a row shift together."""

    @abc.abstractmethod
    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        r"""Return $\ell(\eta_m, y_m)$ for each row $m$."""

    @abc.abstractmethod
    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        r"""Return $\partial\ell / \partial\eta_m$ for each row $m$."""

    @abc.abstractmethod
    def curvature_diagonal(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        r"""Return $a_m \ge 0$ for each row $m$."""

    def accepts(self, labels: Float[Array, "example way"]) -> Bool[Array, "example way"]:
        """Return whether each label is one that the loss is defined for."""
        return jnp.ones_like(labels, bool)

    def curvature(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way way"]:
        r"""Return $\partial^2\ell / \partial\eta_m^2$, symmetric and positive semi-definite, for each row $m$."""
        basis = jnp.eye(logits.shape[-1], dtype=logits.dtype)
        columns = jax.vmap(lambda e: self.curvature_product(logits, labels, jnp.broadcast_to(e, logits.shape)))(basis)
        return jnp.moveaxis(columns, 0, -1)

    def curvature_product(
        self,
        logits: Float[Array, "example way"],
        labels: Float[Array, "example way"],
        vectors: Float[Array, "example way"],
    ) -> Float[Array, "example way"]:
        r"""Return $\ell''_m v_m$ for each row $m$."""
        return multiply_curvature(self.curvature_diagonal(logits, labels), vectors, self.shift_invariant)

    def curvature_bound(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        r"""Return an upper bound on the largest eigenvalue of $\ell''_m$ (Gershgorin's), for each row $m$."""
        diagonal = self.curvature_diagonal(logits, labels)
        if self.shift_invariant:
            diagonal = 2 * diagonal * (1 - _share(diagonal))
        return jnp.max(diagonal, axis=-1)


def multiply_curvature(
    diagonal: Float[Array, "example way"], vectors: Float[Array, "example way"], shift_invariant: bool
) -> Float[Array, "example way"]:
    r"""Return $\mathrm{diag}(a_m) v_m$, less $a_m a_m^\top v_m / \sum_n a_{mn}$ if `shift_invariant`.

    The latter as $C^\top \mathrm{diag}(a) C v$ with $C = I - \mathbf{1} a^\top / \sum_n a_n$: the same matrix, but
    where one way has nearly all of $a$ its small entries keep their relative precision.
    """
    if not shift_invariant:
        return diagonal * vectors
    share = _share(diagonal)
    product = diagonal * (vectors - jnp.sum(share * vectors, axis=-1, keepdims=True))
    return product - share * jnp.sum(product, axis=-1, keepdims=True)


def _share(diagonal: Float[Array, "example way"]) -> Float[Array, "example way"]:
    r"""Return $a_m / \sum_n a_{mn}$, zero for a row of zeros."""
    total = jnp.sum(diagonal, axis=-1, keepdims=True)
    return diagonal / jnp.where(total > 0, total, jnp.ones_like(total))


class CrossEntropy(AbstractLoss):
    r"""Softmax cross-entropy $\ell(\eta, y) = -\sum_n y_n \log p_n$ with $p = \mathrm{softmax}(\eta)$.

    The labels are distributions: one-hot, or smoothed. (A row that sums to $\sigma \ne 1$ counts $\sigma$ times.)
    Gradient $p - y$ and curvature $\mathrm{diag}(p) - pp^\top$ are those of the paper's Lemma 1 (Böhning, 1992).

    **Example:** two classes, equal logits: the loss is $\log 2$, the gradient $\pm 1/2$, the curvature $\pm 1/4$.

    >>> loss, logits, labels = CrossEntropy(), jnp.zeros((1, 2)), jnp.array([[1.0, 0.0]])
    >>> loss.value(logits, labels).round(4).tolist()
    [0.6931]
    >>> loss.gradient(logits, labels).tolist(), loss.curvature(logits, labels).tolist()
    ([[-0.5, 0.5]], [[[0.25, -0.25], [-0.25, 0.25]]])
    """

    @property
    def shift_invariant(self) -> bool:
        return True

    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        return _cross_entropy(logits, labels)

    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return _softmax_residual(logits, labels)

    def accepts(self, labels: Float[Array, "example way"]) -> Bool[Array, "example way"]:
        return labels >= 0

    def curvature_diagonal(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return jax.nn.softmax(logits, axis=-1) * jnp.sum(labels, axis=-1, keepdims=True)


@jax.custom_jvp
def _cross_entropy(logits: Array, labels: Array) -> Array:
    return -jnp.sum(labels * jax.nn.log_softmax(logits, axis=-1), axis=-1)


@_cross_entropy.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (logits, labels), (logits_dot, labels_dot) = primals, tangents
    value_dot = _softmax_residual(logits, labels) * logits_dot - jax.nn.log_softmax(logits, axis=-1) * labels_dot
    return _cross_entropy(logits, labels), jnp.sum(value_dot, axis=-1)


@jax.custom_jvp
def _softmax_residual(logits: Array, labels: Array) -> Array:
    r"""Return $\sigma p - y$ with $\sigma = \sum_n y_n$, relatively precise where $p$ is close to a one-hot $y$.

    There $p_y - 1$ cancels, and only the others' sum knows it: a residual sums to zero, so its rounded sum is error,
    and is taken off in proportion to the labels. The correction is zero in exact arithmetic, so the derivative is that
    of $\sigma p - y$.
    """
    total = jnp.sum(labels, axis=-1, keepdims=True)
    residual = jax.nn.softmax(logits, axis=-1) * total - labels
    off = jnp.sum(residual, axis=-1, keepdims=True) / jnp.where(total > 0, total, jnp.ones_like(total))
    return residual - labels * off


@_softmax_residual.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (logits, labels), (logits_dot, labels_dot) = primals, tangents
    probs = jax.nn.softmax(logits, axis=-1)
    moved = multiply_curvature(probs, logits_dot, shift_invariant=True)
    residual_dot = moved * jnp.sum(labels, axis=-1, keepdims=True)
    residual_dot = residual_dot + probs * jnp.sum(labels_dot, axis=-1, keepdims=True) - labels_dot
    return _softmax_residual(logits, labels), residual_dot


class SigmoidCrossEntropy(AbstractLoss):
    r"""Binary cross-entropy of every way, $\ell(\eta, y) = \sum_n \log(1 + e^{\eta_n}) - y_n\eta_n$, for many labels.

    The labels are in $[0, 1]$, each by itself. Gradient $\sigma(\eta) - y$, curvature
    $\mathrm{diag}(\sigma(\eta)(1 - \sigma(\eta)))$, with $\sigma$ the logistic function (Cox, 1958).

    **Example:** at zero logits: $\log 2$ for each way, gradient $\pm 1/2$, curvature $1/4$.

    >>> loss, logits, labels = SigmoidCrossEntropy(), jnp.zeros((1, 2)), jnp.array([[1.0, 1.0]])
    >>> loss.value(logits, labels).round(4).tolist(), loss.gradient(logits, labels).tolist()
    ([1.3863], [[-0.5, -0.5]])
    >>> loss.curvature(logits, labels).tolist()
    [[[0.25, 0.0], [0.0, 0.25]]]
    """

    @property
    def shift_invariant(self) -> bool:
        return False

    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        return jnp.sum((1 - labels) * jax.nn.softplus(logits) + labels * jax.nn.softplus(-logits), axis=-1)

    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        # σ(η) - y, without cancellation where σ(η) is close to 1.
        return (1 - labels) * jax.nn.sigmoid(logits) - labels * jax.nn.sigmoid(-logits)

    def accepts(self, labels: Float[Array, "example way"]) -> Bool[Array, "example way"]:
        return (labels >= 0) & (labels <= 1)

    def curvature_diagonal(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)


class SquaredError(AbstractLoss):
    r"""Half the squared distance, $\ell(\eta, y) = \frac12 \sum_n (\eta_n - y_n)^2$: for regression and for classes.

    Its flow is linear and is solved in closed form (`comln.flow.linear_flow`).

    >>> loss, logits, labels = SquaredError(), jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> loss.value(logits, labels).tolist(), loss.gradient(logits, labels).tolist()
    ([2.0], [[2.0, 0.0]])
    >>> loss.curvature(logits, labels).tolist()
    [[[1.0, 0.0], [0.0, 1.0]]]
    """

    @property
    def shift_invariant(self) -> bool:
        return False

    def value(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, " example"]:
        return jnp.sum(jnp.square(logits - labels), axis=-1) / 2

    def gradient(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return logits - labels

    def curvature_diagonal(
        self, logits: Float[Array, "example way"], labels: Float[Array, "example way"]
    ) -> Float[Array, "example way"]:
        return jnp.ones_like(logits)
