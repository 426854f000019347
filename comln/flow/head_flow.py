r"""The gradient flow of a linear head in the coordinates in which it is cheapest.

With $c^2$ the mean squared norm of the support embeddings (`logit_unit`), $t' = c^2 t$ and $\lambda' = \lambda/c^2$,

$$ \frac{\mathrm{d}u}{\mathrm{d}t'} = -D\bigl( w \odot \ell'(L_0 + Uu, y) \bigr) - \lambda' u, \qquad u(0) = 0, $$

where $L_0 = \Phi W_0^\top$ are the initial logits of the support set and $Uu$ is how far they have moved.

| | in the span of the embeddings | in the rows of $W$ themselves |
|---|---|---|
| when | fewer examples than features | otherwise |
| $u$ | $-c^2 s$, shape `(support, way)` | $c(W - W_0)^\top$, shape `(feature, way)` |
| $U$ | $G/c^2$ | $\Phi/c$ |
| $D$ | $I$ | $\Phi^\top/c$ |
| $W$ | $W_0 + u^\top\Phi/c^2$ | $W_0 + u^\top/c$ |

Either way a change of $u$ by one changes logits by about one, so that a tolerance on $u$ is a tolerance on logits.
"""

__all__ = ["HeadFlow", "HeadParameters"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp

from comln.flow.resolvent import solve_shifted_hessian
from comln.losses import AbstractLoss
from comln.typing import Array, Float, Scalar


class HeadParameters(NamedTuple):
    r"""What the flow depends on and is differentiated in: $U$, $L_0$ and $\lambda'$."""

    factor: Float[Array, "support _"]
    initial_logits: Float[Array, "support way"]
    proximal: Scalar


@dataclass(frozen=True)
class HeadFlow:
    """The flow's rate, and what a solver wants to know of it.

    - `loss`: the loss of the head.
    - `in_span`: whether the state is in the span of the embeddings, rather than the rows of the weights.

    `constants` is everywhere the pair of the labels and the examples' shares (weights that sum to one).
    """

    loss: AbstractLoss
    in_span: bool

    def logits(self, state: Array, parameters: HeadParameters) -> Float[Array, "support way"]:
        """Return the support logits at `state`."""
        return parameters.initial_logits + parameters.factor @ state

    def _from_residuals(self, residuals: Array, parameters: HeadParameters) -> Array:
        return residuals if self.in_span else parameters.factor.T @ residuals

    def rate(self, state: Array, parameters: HeadParameters, constants: tuple[Array, Array]) -> Array:
        r"""Return $\mathrm{d}u/\mathrm{d}t'$ (Proposition 1)."""
        labels, share = constants
        residuals = share[:, None] * self.loss.gradient(self.logits(state, parameters), labels)
        return -self._from_residuals(residuals, parameters) - parameters.proximal * state

    def radius(self, state: Array, parameters: HeadParameters, constants: tuple[Array, Array]) -> Scalar:
        r"""Return an upper bound on the fastest rate of decay, the spectral radius of $DAU + \lambda'$.

        With $a_m$ the largest eigenvalue of $A_m$ it is at most $\max_m \sum_k \lvert G_{mk} \rvert a_k + \lambda'$.
        """
        labels, share = constants
        largest = share * self.loss.curvature_bound(self.logits(state, parameters), labels)
        factor = jnp.abs(parameters.factor)
        spread = factor @ largest if self.in_span else factor @ (factor.T @ largest)
        return jnp.max(spread) + parameters.proximal

    def resolvent(
        self, state: Array, shift: Scalar, parameters: HeadParameters, constants: tuple[Array, Array]
    ) -> Callable[[Array], Array]:
        r"""Return $b \mapsto ((\text{shift} + \lambda')I + DAU)^{-1} b$ at `state`."""
        return self.resolvents(state, shift, parameters, constants)[0]

    def resolvents(
        self, state: Array, shift: Scalar, parameters: HeadParameters, constants: tuple[Array, Array]
    ) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
        """Return `resolvent` and its transpose."""
        labels, share = constants
        factor = parameters.factor
        return solve_shifted_hessian(
            shift + parameters.proximal,
            share[:, None] * self.loss.curvature_diagonal(self.logits(state, parameters), labels),
            self.loss.shift_invariant,
            lambda vector: factor @ vector,
            lambda residuals: self._from_residuals(residuals, parameters),
            factor if self.in_span else factor @ factor.T,
        )
