r"""The gradient flows of a head on several weightings of the same examples, side by side.

The folds of a cross-validation, or the one of a fit. Fold $k$ sees example $m$ with weight $w_{mk}$, zero if it is held
out, and has its own centre $\mu_k$ and scale $c_k$, so that its examples are $\phi_{mk} = (z_m - \mu_k)/c_k$. Side by
side the products with the examples are one matrix product for all folds:

$$ \Phi_k u_k = Z\,(u_k/c_k) - \mathbf{1}\,\mu_k^\top (u_k/c_k), \qquad
   \Phi_k^\top r_k = \bigl( Z^\top r_k - \mu_k \mathbf{1}^\top r_k \bigr)/c_k . $$

The state is $u_k = (W_k - W_0)^\top$ times the root mean squared norm of the fold's examples, as in
`comln.flow.head_flow`, so that a tolerance on it is a tolerance on logits.
"""

__all__ = ["Stack", "Standardisation"]

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from comln.estimators.padded_problem import Traced
from comln.losses import AbstractLoss
from comln.typing import Array, Float, Scalar


class Standardisation(NamedTuple):
    """What each fold does to its examples.

    - `centred`, `scaled`: whether it centres them, and scales them to a mean squared norm of one.
    - `intercept`: whether the first feature is one, and is left alone.
    """

    centred: bool
    scaled: bool
    intercept: bool


class Stack(NamedTuple):
    r"""Flows side by side; `loss` is an instance without arrays.

    - `centre`: $\mu_k$. `stretch`: $c_k$ times the root of `unit`, one number a feature.
    - `unit`: the mean squared norm of each fold's examples.
    - `share`: weights that sum to one in each fold. `start`: logits at $W_0$.
    """

    examples: Float[Array, "example feature"]
    labels: Float[Array, "example fold way"]
    centre: Float[Array, "feature fold"]
    stretch: Float[Array, "feature fold"]
    unit: Float[Array, " fold"]
    share: Float[Array, "example fold"]
    start: Float[Array, "example fold way"]
    proximal: Scalar
    loss: AbstractLoss

    @classmethod
    def of(
        cls,
        problem: Traced,
        weights: Float[Array, "example fold"],
        proximal: Scalar,
        standardisation: Standardisation,
        loss: AbstractLoss,
    ) -> "Stack":
        """Return the flows on `problem` under these weights."""
        examples = problem.examples
        share = weights / jnp.sum(weights, axis=0, keepdims=True)
        is_feature = (jnp.arange(examples.shape[1]) >= int(standardisation.intercept)).astype(examples.dtype)[:, None]
        centre = examples.T @ share * (is_feature if standardisation.centred else 0.0)
        # About the centre rather than about zero, and not as a difference of squares, which would cancel.
        squares = jnp.sum(jnp.square(examples[:, :, None] - centre[None]) * share[:, None, :], axis=0)
        mean_square = jnp.sum(is_feature * squares, axis=0, keepdims=True)
        scale = jnp.where(mean_square > 0, jnp.sqrt(mean_square), 1.0) if standardisation.scaled else 1.0
        stretch = jnp.where(is_feature > 0, scale, 1.0) * jnp.ones_like(centre)
        unit = jnp.sum(squares / jnp.square(stretch), axis=0)
        unit = jnp.where(unit > 0, unit, 1.0)
        # The start is the same head in every fold's coordinates, so its logits are those of the examples as they come.
        start = examples @ problem.start.T
        return cls(
            examples=examples,
            labels=jnp.broadcast_to(problem.labels[:, None], (*share.shape, problem.labels.shape[1])),
            centre=centre,
            stretch=stretch * jnp.sqrt(unit)[None],
            unit=unit,
            share=share,
            start=jnp.broadcast_to(start[:, None], (*share.shape, start.shape[1])),
            proximal=proximal,
            loss=loss,
        )

    def zero(self) -> Float[Array, "feature fold way"]:
        """Return the state at time zero."""
        return jnp.zeros((*self.centre.shape, self.labels.shape[2]), self.examples.dtype)

    def direction(self) -> Float[Array, "feature fold way"]:
        """Return a direction for the power method to begin at, which padding does not change."""
        zero = self.zero()
        feature, way = (jnp.arange(zero.shape[axis], dtype=zero.dtype) for axis in (0, 2))
        pattern = jnp.sin(1 + feature)[:, None, None] * jnp.cos(1 + 2 * way)[None, None, :] + zero
        return self._replace(proximal=jnp.zeros_like(self.proximal)).multiply_hessian(zero, pattern)

    def moves(self, state: Float[Array, "feature fold way"]) -> Float[Array, "example fold way"]:
        """Return by how much the logits of all examples have moved at `state`."""
        heads = state / self.stretch[:, :, None]
        shifts = jnp.sum(self.centre[:, :, None] * heads, axis=0)
        return jnp.tensordot(self.examples, heads, axes=1) - shifts[None]

    def _gather(self, residuals: Array) -> Array:
        total = jnp.sum(residuals, axis=0)
        gathered = jnp.tensordot(self.examples.T, residuals, axes=1) - self.centre[:, :, None] * total[None]
        return gathered / self.stretch[:, :, None] * self.unit[None, :, None]

    def rate(self, state: Float[Array, "feature fold way"]) -> Float[Array, "feature fold way"]:
        r"""Return $\mathrm{d}u/\mathrm{d}t$."""
        logits = self.start + self.moves(state)
        residuals = self.share[:, :, None] * self._by_rows(self.loss.gradient, logits)
        return -self._gather(residuals) - self.proximal * state

    def multiply_hessian(self, state: Array, vector: Array) -> Float[Array, "feature fold way"]:
        r"""Return minus the derivative of `rate` at `state` times `vector`."""
        logits = self.start + self.moves(state)
        curved = self._by_rows(self.loss.curvature_product, logits, self.moves(vector))
        return self._gather(self.share[:, :, None] * curved) + self.proximal * vector

    def _by_rows(self, function: Callable[..., Array], logits: Array, *more: Array) -> Array:
        """Apply a function of the loss, which takes rows, to all examples of all folds."""
        rows = [x.reshape(-1, x.shape[-1]) for x in (logits, self.labels, *more)]
        return function(*rows).reshape(logits.shape)

    def head(self, state: Float[Array, "feature fold way"]) -> Float[Array, "fold way feature"]:
        """Return by how much the heads have moved, in the coordinates of the folds' centred and scaled examples."""
        return jnp.moveaxis(state / jnp.sqrt(self.unit)[None, :, None], 0, -1)
