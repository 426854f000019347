"""From what a user passes to a flow that can be followed, or to the reason why it cannot."""

__all__ = ["as_arrays", "may_rest", "pose", "raise_if_failed"]

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from comln.flow.integrator import FlowInfo, FlowResult
from comln.flow.meta_gradients.base import FlowProblem
from comln.flow.not_differentiated import not_differentiated
from comln.losses import AbstractLoss
from comln.typing import Array, Bool, Float, ScalarLike


def as_arrays(
    initial_weights: Float[Array, "way feature"],
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    horizon: ScalarLike,
    mask: Float[Array, " support"] | None,
    proximal: ScalarLike,
) -> tuple[Array, ...]:
    """Return the arguments in this order as arrays of one type, or raise `ValueError` if their shapes disagree."""
    _check_shapes(initial_weights, embeddings, labels, mask)
    # Whole numbers and half precision are followed in single precision: a horizon of 0.9 must not become 0.
    dtype = jnp.result_type(initial_weights, embeddings)
    if not jnp.issubdtype(dtype, jnp.floating) or jnp.finfo(dtype).bits < 32:
        dtype = jnp.dtype(jnp.float32)
    return (
        initial_weights.astype(dtype),
        embeddings.astype(dtype),
        labels.astype(dtype),
        jnp.asarray(horizon, dtype),
        jnp.ones(labels.shape[:1], dtype) if mask is None else mask.astype(dtype),
        jnp.asarray(proximal, dtype),
    )


def may_rest(horizon: ScalarLike, proximal: ScalarLike) -> bool:
    """Return whether the flow may come to rest before its horizon, as far as that is known before anything runs."""
    return _is_number(horizon, math.inf) or not _is_number(proximal, 0.0)


def _is_number(value: Any, number: float) -> bool:
    """Return whether `value` is known to be `number` before anything runs."""
    return isinstance(value, int | float) and value == number


def pose(
    arrays: tuple[Array, ...], loss: AbstractLoss, may_rest: bool, reaches_infinity: bool
) -> tuple[FlowProblem, FlowResult]:
    """Return the flow to follow, and whether it can be followed.

    A task that cannot gets a horizon of zero, and lets no cotangent through: 0 x NaN is NaN.

    - `arrays`: what `as_arrays` returns.
    """
    initial_weights, embeddings, labels, horizon, mask, proximal = arrays
    labels = not_differentiated(labels, "`labels` are not differentiated. Wrap them in `jax.lax.stop_gradient`.")
    mask = not_differentiated(mask, "`mask` is not differentiated. Wrap it in `jax.lax.stop_gradient`.")
    # Finite squares also keep the Gram matrix and the logits from overflowing.
    squares = [jnp.sum(jnp.square(x)) for x in (initial_weights, embeddings, labels, mask, proximal)]
    finite = jnp.all(jnp.isfinite(jnp.stack(squares)))
    result = _first_failure(
        (~finite, FlowResult.non_finite_input),
        (~(jnp.sum(mask) > 0) | jnp.any(mask < 0), FlowResult.empty_support),
        (~(horizon >= 0), FlowResult.invalid_horizon),
        (jnp.isinf(horizon) & (not reaches_infinity), FlowResult.infinite_horizon),
        (proximal < 0, FlowResult.negative_proximal),
        (~jnp.all(loss.accepts(labels)), FlowResult.invalid_labels),
    )
    usable = result == FlowResult.successful
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
    return problem, result


def _closed_unless(open_: Bool[Array, ""], array: Array) -> Array:
    """Return `array` as it is; its cotangent is zero, whatever flows back, unless `open_`.

    A custom reverse rule in its place would be wrong for an `array` that tasks share: `jax.vmap` sums the cotangents of
    the tasks before the rule, and the results of the rule, one for each task's `open_`, once more.
    """
    return jnp.where(open_, array, jax.lax.stop_gradient(array))


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


def raise_if_failed(info: FlowInfo) -> None:
    """Raise outside of transformations, where the result is known."""
    code = info.result._value
    if isinstance(code, Tracer) or info.result == FlowResult.successful:
        return
    exhausted = bool(info.result == FlowResult.max_steps_reached) or bool(info.result == FlowResult.step_underflow)
    raise (RuntimeError if exhausted else ValueError)(FlowResult[info.result])
