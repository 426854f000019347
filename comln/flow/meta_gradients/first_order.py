r"""The first-order meta-gradient: the inner gradients are constants, as in first-order MAML (Finn et al., 2017).

$$ \frac{\partial L}{\partial W_0} = V, \qquad \frac{\partial L}{\partial \Phi} = 0, \qquad
   \frac{\partial L}{\partial T} = -\langle V, \nabla L_\text{support}(W(T)) \rangle, $$

with $V = \partial L / \partial W(T)$. It is what is left of Proposition 5 without the term $C^\top\Phi$.
"""

__all__ = ["FirstOrder"]

import jax

from comln.flow.integrator import FlowInfo, Integrator
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem, with_horizon_gradient
from comln.flow.meta_gradients.span_adjoint import SpanAdjoint
from comln.flow.not_differentiated import not_differentiated
from comln.typing import Array, Float


class FirstOrder(AbstractMetaGradient):
    r"""Not exact: nothing reaches the support embeddings. The gradient of $T$ is exact. No state is kept.

    Any integrator, any horizon that `SpanAdjoint` takes. $\lambda$ is not differentiated.
    """

    @property
    def reaches_infinity(self) -> bool:
        return True

    def solve(self, problem: FlowProblem, integrator: Integrator) -> tuple[Float[Array, "way feature"], FlowInfo]:
        not_differentiated(
            problem.proximal, "`proximal` is not differentiated by FirstOrder. Use `meta_gradient=SpanAdjoint()`."
        )
        fixed = jax.lax.stop_gradient(problem)
        weights, info = SpanAdjoint().solve(fixed, integrator)
        moved = jax.lax.stop_gradient(weights - fixed.initial_weights)
        return with_horizon_gradient(problem.initial_weights + moved, fixed, problem.horizon), info
