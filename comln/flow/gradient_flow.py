"""The public entry: follow the gradient flow of a linear head's support loss."""

__all__ = ["gradient_flow"]

import equinox as eqx
import jax.numpy as jnp

from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrator import Euler, FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import AbstractMetaGradient
from comln.flow.meta_gradients.span_adjoint import SpanAdjoint
from comln.flow.posing import as_arrays, may_rest, pose, raise_if_failed
from comln.losses import AbstractLoss, CrossEntropy
from comln.typing import Array, Float, ScalarLike


def gradient_flow(
    initial_weights: Float[Array, "way feature"],
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    horizon: ScalarLike,
    *,
    mask: Float[Array, " support"] | None = None,
    loss: AbstractLoss = CrossEntropy(),
    proximal: ScalarLike = 0.0,
    meta_gradient: AbstractMetaGradient = SpanAdjoint(),
    integrator: Integrator = Integrator(),
) -> tuple[Float[Array, "way feature"], FlowInfo]:
    r"""Follow the gradient flow of the support loss from $W_0$ for time $T$ (equation 8; Algorithms 5 and 6).

    $$ \frac{\mathrm{d}W}{\mathrm{d}t} = -\nabla L(W(t)), \qquad W(0) = W_0, \qquad
       L(W) = \frac{1}{\sum_m w_m} \sum_m w_m \ell(W\phi_m, y_m) + \frac{\lambda}{2} \lVert W - W_0 \rVert^2 $$

    One task; use `jax.vmap` for a batch of tasks. Differentiable in reverse mode in `initial_weights`, `embeddings`,
    `horizon` and (by `SpanAdjoint`) `proximal`; asking for a gradient in `labels` or `mask` is an error.

    **Arguments:**
    - `initial_weights`: $W_0$, shape `(way, feature)`.
    - `embeddings`: rows $\phi_m$, shape `(support, feature)`.
    - `labels`: rows $y_m$, shape `(support, way)`: for the cross-entropy one-hot or smoothed, each summing to one.
    - `horizon`: $T \ge 0$. At zero the flow returns `initial_weights`. `jnp.inf` asks for the limit, which exists for
      `proximal` > 0, smoothed labels or a squared error, but not for separable one-hot labels.
    - `mask`: weights $w_m \ge 0$ of the examples, shape `(support,)`; zero leaves an example out. Default: all ones.
    - `loss`: $\ell$, the cross-entropy by default.
    - `proximal`: $\lambda \ge 0$, pulls the weights to where they began.
    - `meta_gradient`: how to differentiate the solve. Exact methods differ only in time and memory.
    - `integrator`: tolerances in units of logits, limit on steps, method.

    **Returns:** $W(T)$, of the shape of `initial_weights`, and a `FlowInfo`. Where a solve fails `info.result` says
    why, the weights are NaN, and every gradient is zero.

    **Raises:** `ValueError` if shapes disagree. Outside `jax.jit` and `jax.vmap` a failed solve raises `ValueError`
    (bad input) or `RuntimeError` (steps ran out) with the remedy.

    **Example:** two points at $\pm 1$. By symmetry $W = (w, -w)$ with $w + (e^{2w} - 1)/2 = T$; this $T$ makes $w = 1$.

    >>> points, labels = jnp.array([[1.0], [-1.0]]), jnp.eye(2)
    >>> weights, info = gradient_flow(jnp.zeros((2, 1)), points, labels, horizon=1 + (jnp.exp(2.0) - 1) / 2)
    >>> weights.round(3).tolist()
    [[1.0], [-1.0]]
    """
    weights, info = _gradient_flow(
        as_arrays(initial_weights, embeddings, labels, horizon, mask, proximal),
        loss,
        meta_gradient,
        integrator,
        may_rest(horizon, proximal),
    )
    raise_if_failed(info)
    return weights, info


@eqx.filter_jit
@at_highest_precision
def _gradient_flow(
    arrays: tuple[Array, ...],
    loss: AbstractLoss,
    meta_gradient: AbstractMetaGradient,
    integrator: Integrator,
    may_rest: bool,
) -> tuple[Float[Array, "way feature"], FlowInfo]:
    reaches_infinity = may_rest and meta_gradient.reaches_infinity and not isinstance(integrator.method, Euler)
    problem, posed = pose(arrays, loss, may_rest, reaches_infinity)
    weights, info = meta_gradient.solve(problem, integrator)
    result = FlowResult.where(posed == FlowResult.successful, info.result, posed)
    weights = jnp.where(result == FlowResult.successful, weights, jnp.full_like(weights, jnp.nan))
    return weights, FlowInfo(result, info.steps)
