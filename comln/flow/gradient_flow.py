"""The public entry: follow the gradient flow of a linear head's support loss."""

__all__ = ["gradient_flow"]

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from comln.flow.integrator import Euler, FlowInfo, FlowResult, Integrator
from comln.flow.meta_gradients.base import AbstractMetaGradient, FlowProblem
from comln.flow.meta_gradients.span_adjoint import SpanAdjoint
from comln.flow.not_differentiated import not_differentiated
from comln.losses import AbstractLoss, CrossEntropy
from comln.typing import Array, Bool, Float, Scalar, ScalarLike


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
    - `labels`: rows $y_m$, one-hot or smoothed, each summing to one, shape `(support, way)`.
    - `horizon`: $T \ge 0$. At zero the flow returns `initial_weights`.
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
    _check_shapes(initial_weights, embeddings, labels, mask)
    dtype = jnp.result_type(initial_weights, embeddings)
    weights, info = _gradient_flow(
        initial_weights.astype(dtype),
        embeddings.astype(dtype),
        labels.astype(dtype),
        jnp.asarray(horizon, dtype),
        jnp.ones(labels.shape[:1], dtype) if mask is None else mask.astype(dtype),
        jnp.asarray(proximal, dtype),
        loss,
        meta_gradient,
        integrator,
        _is_number(horizon, math.inf) or not _is_number(proximal, 0.0),
    )
    _raise_if_failed(info)
    return weights, info


@eqx.filter_jit
def _gradient_flow(
    initial_weights: Float[Array, "way feature"],
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    horizon: Scalar,
    mask: Float[Array, " support"],
    proximal: Scalar,
    loss: AbstractLoss,
    meta_gradient: AbstractMetaGradient,
    integrator: Integrator,
    may_rest: bool,
) -> tuple[Float[Array, "way feature"], FlowInfo]:
    labels = not_differentiated(labels, "`labels` are not differentiated. Wrap them in `jax.lax.stop_gradient`.")
    mask = not_differentiated(mask, "`mask` is not differentiated. Wrap it in `jax.lax.stop_gradient`.")
    # Finite squares also keep the Gram matrix and the logits from overflowing.
    squares = [jnp.sum(jnp.square(x)) for x in (initial_weights, embeddings, labels, mask, proximal)]
    finite = jnp.all(jnp.isfinite(jnp.stack(squares)))
    reaches_infinity = may_rest and meta_gradient.reaches_infinity and not isinstance(integrator.method, Euler)
    problem_result = _first_failure(
        (~finite, FlowResult.non_finite_input),
        (~(jnp.sum(mask) > 0) | jnp.any(mask < 0), FlowResult.empty_support),
        (~(horizon >= 0), FlowResult.invalid_horizon),
        (jnp.isinf(horizon) & (not reaches_infinity), FlowResult.infinite_horizon),
        (proximal < 0, FlowResult.negative_proximal),
    )
    usable = problem_result == FlowResult.successful

    # A task that cannot be solved gets a horizon of zero, and lets no cotangent through: 0 x NaN is NaN.
    mask = jnp.where(usable, mask, jnp.ones_like(mask))
    problem = FlowProblem(
        initial_weights=_closed_unless(usable, initial_weights),
        embeddings=_closed_unless(usable, embeddings),
        labels=labels,
        share=mask / jnp.sum(mask),
        horizon=jnp.where(usable, horizon, jnp.zeros_like(horizon)),
        proximal=jnp.where(usable, proximal, jnp.zeros_like(proximal)),
        loss=loss,
        may_rest=may_rest,
    )
    with jax.default_matmul_precision("highest"):
        weights, info = meta_gradient.solve(problem, integrator)
    result = FlowResult.where(usable, info.result, problem_result)
    weights = jnp.where(result == FlowResult.successful, weights, jnp.full_like(weights, jnp.nan))
    return weights, FlowInfo(result, info.steps)


@jax.custom_vjp
def _closed_unless(open_: Bool[Array, ""], array: Array) -> Array:
    """Return `array` as it is; its cotangent is zero, whatever flows back, unless `open_`."""
    return array


def _closed_forward(open_: Array, array: Array) -> tuple[Array, Array]:
    return array, open_


def _closed_backward(open_: Array, cotangent: Array) -> tuple[None, Array]:
    return None, jnp.where(open_, cotangent, jnp.zeros_like(cotangent))


_closed_unless.defvjp(_closed_forward, _closed_backward)


def _is_number(value: Any, number: float) -> bool:
    """Return whether `value` is known to be `number` before anything runs."""
    return isinstance(value, int | float) and value == number


def _first_failure(*cases: tuple[Bool[Array, ""], FlowResult]) -> FlowResult:
    result = FlowResult.successful
    for failed, code in reversed(cases):
        result = FlowResult.where(failed, code, result)
    return result


def _check_shapes(initial_weights: Array, embeddings: Array, labels: Array, mask: Array | None) -> None:
    for name, array in (("initial_weights", initial_weights), ("embeddings", embeddings), ("labels", labels)):
        if array.ndim != 2:
            raise ValueError(
                f"`{name}` must have two axes, got shape {array.shape}. Pass one task; "
                "use `jax.vmap` for a batch of tasks."
            )
    if embeddings.shape[0] != labels.shape[0]:
        raise ValueError(
            "`embeddings` and `labels` must agree on the number of support examples: got "
            f"{embeddings.shape[0]} embeddings and {labels.shape[0]} labels. "
            "Pass one task; use `jax.vmap` for a batch of tasks."
        )
    if initial_weights.shape != (labels.shape[1], embeddings.shape[1]):
        raise ValueError(
            f"`initial_weights` must have shape (way, feature) = {(labels.shape[1], embeddings.shape[1])}, as `labels` "
            f"and `embeddings` have it, got {initial_weights.shape}."
        )
    if mask is not None and mask.shape != embeddings.shape[:1]:
        raise ValueError(f"`mask` must have shape {embeddings.shape[:1]}, one weight an example, got {mask.shape}.")
    if embeddings.shape[0] == 0:
        raise ValueError(FlowResult[FlowResult.empty_support])


def _raise_if_failed(info: FlowInfo) -> None:
    """Raise outside of transformations, where the result is known."""
    code = info.result._value
    if isinstance(code, Tracer) or info.result == FlowResult.successful:
        return
    exhausted = bool(info.result == FlowResult.max_steps_reached) or bool(info.result == FlowResult.step_underflow)
    raise (RuntimeError if exhausted else ValueError)(FlowResult[info.result])
