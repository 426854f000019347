r"""The gradient flows of a softmax head on several weightings of the same examples, side by side.

The folds of a cross-validation, or the one of a fit. Fold $k$ sees example $m$ with weight $w_{mk}$, zero if it is held
out, and has its own centre $\mu_k$ and scale $c_k$, so that its examples are $\phi_{mk} = (z_m - \mu_k)/c_k$. Side by
side the products with the examples are one matrix product for all folds:

$$ \Phi_k u_k = Z\,(u_k/c_k) - \mathbf{1}\,\mu_k^\top (u_k/c_k), \qquad
   \Phi_k^\top r_k = \bigl( Z^\top r_k - \mu_k \mathbf{1}^\top r_k \bigr)/c_k . $$

The state is $u_k = W_k - W_0$ times the root mean squared norm of the fold's examples, as in `comln.flow.head_flow`, so
that a tolerance on it is a tolerance on logits. Ways are the first axis everywhere: a softmax over the last one, which
is short, takes a CPU longer than the products (17 and 40 μs an evaluation together, of 224 examples, 5 folds, 10 ways).
"""

__all__ = ["Stack", "Standardisation"]

from typing import NamedTuple

import jax.numpy as jnp

from comln.estimators.padded_problem import Traced
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
    r"""Flows side by side.

    - `labels`: one-hot, zero for ways that are not there.
    - `centre`: $\mu_k$. `stretch`: $c_k$ times the root of `unit`, one number a feature.
    - `unit`: the mean squared norm of each fold's examples.
    - `share`: weights that sum to one in each fold. `start`: logits at $W_0$, very low for ways that are not there.
    """

    examples: Float[Array, "example feature"]
    labels: Float[Array, "way _ example"]
    centre: Float[Array, "fold feature"]
    stretch: Float[Array, "fold feature"]
    unit: Float[Array, " fold"]
    share: Float[Array, "fold example"]
    start: Float[Array, "way _ example"]
    proximal: Scalar

    @classmethod
    def of(
        cls,
        problem: Traced,
        weights: Float[Array, "fold example"],
        proximal: Scalar,
        standardisation: Standardisation,
    ) -> "Stack":
        """Return the flows on `problem` under these weights."""
        examples = problem.examples
        share = weights / jnp.sum(weights, axis=1, keepdims=True)
        is_feature = (jnp.arange(examples.shape[1]) >= int(standardisation.intercept)).astype(examples.dtype)[None]
        centre = share @ examples * (is_feature if standardisation.centred else 0.0)
        # About the centre rather than as a difference of squares, which would cancel.
        squares = jnp.sum(share[:, :, None] * jnp.square(examples[None] - centre[:, None]), axis=1)
        mean_square = jnp.sum(is_feature * squares, axis=1, keepdims=True)
        scale = jnp.where(mean_square > 0, jnp.sqrt(mean_square), 1.0) if standardisation.scaled else 1.0
        stretch = jnp.where(is_feature > 0, scale, 1.0) * jnp.ones_like(centre)
        unit = jnp.sum(squares / jnp.square(stretch), axis=1)
        unit = jnp.where(unit > 0, unit, 1.0)
        closed = jnp.any(problem.labels < 0, axis=0)[:, None]
        # The start is the same head in every fold's coordinates, so its logits are those of the examples as they come.
        start = problem.start @ examples.T
        lowest = jnp.finfo(start.dtype).min / 4
        return cls(
            examples=examples,
            labels=jnp.maximum(problem.labels.T, 0.0)[:, None],
            centre=centre,
            stretch=stretch * jnp.sqrt(unit)[:, None],
            unit=unit,
            share=share,
            start=jnp.where(closed, lowest, start)[:, None],
            proximal=proximal,
        )

    def zero(self) -> Float[Array, "way fold feature"]:
        """Return the state at time zero."""
        return jnp.zeros((len(self.labels), *self.centre.shape), self.examples.dtype)

    def direction(self) -> Float[Array, "way fold feature"]:
        """Return a direction for the power method to begin at, which padding does not change."""
        zero = self.zero()
        way, feature = (jnp.arange(zero.shape[axis], dtype=zero.dtype) for axis in (0, 2))
        pattern = jnp.cos(1 + 2 * way)[:, None, None] * jnp.sin(1 + feature)[None, None, :] + zero
        product = self._replace(proximal=jnp.zeros_like(self.proximal)).multiply_hessian(zero, pattern)
        # Where the start is so sure of everything that nothing curves yet, any direction will do until it does.
        return jnp.where(jnp.any(product != 0), product, pattern)

    def logits(self, state: Float[Array, "way fold feature"]) -> Float[Array, "way fold example"]:
        """Return the logits of all examples, held out or not, at `state`."""
        return self.start + self._moves(state)

    def rate(self, state: Float[Array, "way fold feature"]) -> Float[Array, "way fold feature"]:
        r"""Return $\mathrm{d}u/\mathrm{d}t$."""
        residuals = _softmax(self.logits(state)) - self.labels
        # They sum to zero. Where p is close to one, p - y has lost digits that the others' sum knows.
        residuals = residuals - self.labels * jnp.sum(residuals, axis=0, keepdims=True)
        return -self._gather(residuals) - self.proximal * state

    def multiply_hessian(self, state: Array, vector: Array) -> Float[Array, "way fold feature"]:
        r"""Return minus the derivative of `rate` at `state` times `vector`."""
        probabilities, moves = _softmax(self.logits(state)), self._moves(vector)
        curved = probabilities * (moves - jnp.sum(probabilities * moves, axis=0, keepdims=True))
        return self._gather(curved) + self.proximal * vector

    def head(self, state: Float[Array, "way fold feature"]) -> Float[Array, "way fold feature"]:
        """Return by how much the heads have moved, in the coordinates of the folds' centred and scaled examples."""
        return state / jnp.sqrt(self.unit)[None, :, None]

    def _moves(self, state: Array) -> Array:
        heads = state / self.stretch[None]
        shifts = jnp.sum(self.centre[None] * heads, axis=2, keepdims=True)
        return jnp.tensordot(heads, self.examples, axes=[[2], [1]]) - shifts

    def _gather(self, residuals: Array) -> Array:
        residuals = self.share[None] * residuals
        total = jnp.sum(residuals, axis=2, keepdims=True)
        gathered = jnp.tensordot(residuals, self.examples, axes=[[2], [0]]) - self.centre[None] * total
        return gathered * (self.unit[:, None] / self.stretch)[None]


def _softmax(logits: Array) -> Array:
    """Return the softmax over the first axis."""
    powers = jnp.exp(logits - jnp.max(logits, axis=0, keepdims=True))
    return powers / jnp.sum(powers, axis=0, keepdims=True)
