"""A horizon for each task, from statistics of its support set."""

__all__ = ["STATISTICS", "TaskHorizon", "support_statistics"]

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.episode import Examples
from comln.typing import Array, Float, PRNGKeyArray, Scalar

STATISTICS = (
    "ways: log(N / 5)",
    "shots: log(M / N)",
    "initial loss: its mean at W0, over log N, minus 1",
    "size: log of the total variance of the embeddings",
    "rank: log of (sum of eigenvalues)^2 over (sum of squares) of the Gram matrix",
    "tail: log of (sum of cubes)(sum) over (sum of squares)^2",
    "alignment: cosine between the Gram matrices of embeddings and labels",
    "scatter: share of the variance that is within classes",
)
"""What is measured of a support set, in order."""


class TaskHorizon(eqx.Module):
    r"""A factor for the horizon of each task, $\exp(b \tanh(c / b))$ with $c = v^\top \tanh(A s + a)$.

    $s$ are `support_statistics`, which depend on neither the order of the examples nor the names of the classes. The
    task-specific horizon is what Deleu et al. (2022) leave for future work; it is learned by the same $dL/dT$.

    - `weights`, `bias`: $A$ and $a$. `output`: $v$, zero before training: all tasks have one horizon then.
    - `bound`: $b > 0$; the factor stays within $e^{-b}$ and $e^b$.

    **Example:** untrained, the factor is one.

    >>> support = Examples(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2))
    >>> float(TaskHorizon.init(jax.random.key(0))(support, jnp.zeros((2, 2))))
    1.0
    """

    weights: Float[Array, "hidden statistic"]
    bias: Float[Array, " hidden"]
    output: Float[Array, " hidden"]
    bound: float = 4.0

    @classmethod
    def init(cls, key: PRNGKeyArray, hidden: int = 16) -> "TaskHorizon":
        """Return an untrained one with `hidden` units."""
        weights = jax.random.normal(key, (hidden, len(STATISTICS))) / len(STATISTICS) ** 0.5
        return cls(weights, jnp.zeros(hidden), jnp.zeros(hidden))

    def __call__(self, support: Examples, initial_logits: Float[Array, "support way"]) -> Scalar:
        """Return the factor for a task; `initial_logits` are those of its support examples before adaptation."""
        hidden = jnp.tanh(self.weights @ support_statistics(support, initial_logits) + self.bias)
        return jnp.exp(self.bound * jnp.tanh(self.output @ hidden / self.bound))


def support_statistics(support: Examples, initial_logits: Float[Array, "support way"]) -> Float[Array, " statistic"]:
    r"""Return what `STATISTICS` lists, for one task.

    Embeddings and labels are centred at their means. `mask` weighs the examples: one of weight zero does not count.

    **Example:** two points, one of each of two classes: one eigenvalue, aligned with the labels, nothing within.

    >>> support = Examples(jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.ones(2))
    >>> support_statistics(support, jnp.zeros((2, 2))).round(3).tolist()
    [-0.916, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    """
    labels, mask = support.labels, support.mask
    count, ways = jnp.sum(mask), labels.shape[1]
    share = mask / count
    tiny = jnp.finfo(support.inputs.dtype).tiny ** 0.25

    def centred(x: Float[Array, "support column"]) -> Float[Array, "support column"]:
        return jnp.sqrt(share)[:, None] * (x - (share @ x)[None, :])

    def gram(x: Float[Array, "support column"]) -> Float[Array, "support support"]:
        return jnp.matmul(x, x.T, precision="highest")

    embeddings, classes = centred(support.inputs), centred(labels)
    kernel, target = gram(embeddings), gram(classes)
    square = jnp.matmul(kernel, kernel, precision="highest")
    first, second, third = jnp.trace(kernel) + tiny, jnp.trace(square) + tiny, jnp.sum(square * kernel) + tiny
    alignment = jnp.sum(kernel * target) / jnp.sqrt(second * (jnp.sum(target * target) + tiny))
    of_class = share @ labels
    means = labels.T @ (share[:, None] * support.inputs) / jnp.where(of_class > 0, of_class, 1.0)[:, None]
    within = jnp.sum(share[:, None] * jnp.square(support.inputs - labels @ means))
    losses = jax.nn.logsumexp(initial_logits, axis=1) - jnp.sum(labels * initial_logits, axis=1)
    return jnp.stack(
        [
            jnp.log(jnp.asarray(ways / 5, kernel.dtype)),
            jnp.log(count / ways),
            share @ losses / math.log(ways) - 1,
            jnp.log(first),
            jnp.log(jnp.square(first) / second),
            jnp.log(third * first / jnp.square(second)),
            alignment,
            within / first,
        ]
    )
