r"""The flow of the squared error, in closed form.

With the squared error the flow of `comln.flow.head_flow` is linear. Let $S = \sqrt{w}\,G\sqrt{w}$ (in the span of the
embeddings) or $S = \Phi^\top w \Phi$ (in the rows of the weights): symmetric, with eigenvalues $\mu \ge 0$. Then, for
$b = \sqrt{w}(L_0 - y)$ or $b = \Phi^\top w (L_0 - y)$ and up to the factor $\sqrt{w}$,

$$ u(T) = -f(S)\,b, \qquad
   f(\mu) = \int_0^T e^{-(\mu + \lambda)t}\,\mathrm{d}t = \frac{1 - e^{-(\mu + \lambda)T}}{\mu + \lambda}, $$

exact at any $T$, which may be infinite. The derivative of a matrix function is a product with its divided differences
in the eigenbasis (Daleckii and Krein, 1965), finite where eigenvalues coincide.
"""

__all__ = ["follow_linear_flow"]

import jax
import jax.numpy as jnp

from comln.flow.head_flow import HeadParameters
from comln.flow.highest_precision import at_highest_precision
from comln.typing import Array, Float, Scalar


def _mean_decay(x: Array) -> Array:
    r"""Return $\varphi(x) = (1 - e^{-x})/x$."""
    safe = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, -jnp.expm1(-safe) / safe, 1.0)


def _mean_decay_derivative(x: Array) -> Array:
    r"""Return $\varphi'(x) = (e^{-x}(1 + x) - 1)/x^2$, by its series near zero."""
    safe = jnp.where(x > 1, x, 2.0)
    series, term = jnp.zeros_like(x), -0.5 * jnp.ones_like(x)
    for k in range(1, 18):
        series = series + k * term
        term = -term * jnp.minimum(x, 1.0) / (k + 2)
    return jnp.where(x > 1, (jnp.exp(-safe) * (1 + safe) - 1) / safe**2, series)


def _spectral_functions(spectrum: Array, end: Scalar, proximal: Scalar) -> tuple[Array, Array]:
    r"""Return $f(\mu_i)$ and the divided differences $(f(\mu_i) - f(\mu_j))/(\mu_i - \mu_j)$."""
    epsilon = jnp.finfo(spectrum.dtype).eps
    rates = spectrum + proximal
    finite_end = jnp.where(jnp.isinf(end), jnp.ones_like(end), end)
    x = rates * finite_end
    values = finite_end * _mean_decay(x)
    gap = x[:, None] - x[None, :]
    middle = (x[:, None] + x[None, :]) / 2
    close = jnp.abs(gap) <= epsilon ** (1 / 3) * jnp.maximum(1.0, middle)
    quotient = (values[:, None] - values[None, :]) / jnp.where(close, 1.0, gap)
    differences = finite_end * jnp.where(close, finite_end * _mean_decay_derivative(middle), quotient)

    # Modes that do not decay do not move the weights. In the limit, and where the time is so long that rounding would
    # pass for their motion, they are left out, as in a pseudo-inverse.
    cutoff = len(spectrum) * epsilon * jnp.max(rates)
    moves = rates > cutoff
    kept = moves | (cutoff * finite_end < 0.1)
    values = jnp.where(kept, values, 0.0)
    differences = jnp.where(kept[:, None] & kept[None, :], differences, _mixed(kept, values, x, finite_end))
    inverse = jnp.where(moves, 1 / jnp.where(moves, rates, 1.0), 0.0)
    both = moves[:, None] & moves[None, :]
    product = inverse[:, None] * inverse[None, :]
    limit_differences = jnp.where(both, -product, jnp.square(inverse)[:, None] + jnp.square(inverse)[None, :])
    is_limit = jnp.isinf(end)
    return jnp.where(is_limit, inverse, values), jnp.where(is_limit, limit_differences, differences)


def _mixed(kept: Array, values: Array, x: Array, end: Scalar) -> Array:
    """Return the divided differences between a mode that is kept and one that is left out: zero there, value 0."""
    quotient = jnp.where(kept, end * values / jnp.where(x > 0, x, 1.0), 0.0)
    return jnp.where(kept[:, None] != kept[None, :], quotient[:, None] + quotient[None, :], 0.0)


@jax.custom_vjp
def _apply_mean_decay(
    matrix: Float[Array, "n n"], vectors: Float[Array, "n way"], end: Scalar, proximal: Scalar
) -> Float[Array, "n way"]:
    r"""Return $f(S)b$ for a symmetric positive semi-definite $S$."""
    return _forward(matrix, vectors, end, proximal)[0]


@at_highest_precision
def _forward(matrix: Array, vectors: Array, end: Scalar, proximal: Scalar) -> tuple[Array, tuple[Array, ...]]:
    spectrum, basis = jnp.linalg.eigh(matrix)
    spectrum = jnp.maximum(spectrum, 0.0)
    values, _ = _spectral_functions(spectrum, end, proximal)
    rotated = basis.T @ vectors
    return basis @ (values[:, None] * rotated), (spectrum, basis, rotated, end, proximal)


@at_highest_precision
def _backward(residuals: tuple[Array, ...], result_bar: Array) -> tuple[Array, Array, Scalar, Scalar]:
    spectrum, basis, rotated, end, proximal = residuals
    values, differences = _spectral_functions(spectrum, end, proximal)
    rotated_bar = basis.T @ result_bar
    outer = rotated_bar @ rotated.T
    matrix_bar = basis @ (differences * (outer + outer.T) / 2) @ basis.T
    vectors_bar = basis @ (values[:, None] * rotated_bar)
    overlap = jnp.sum(rotated_bar * rotated, axis=1)
    end_bar = jnp.sum(overlap * jnp.where(jnp.isinf(end), 0.0, jnp.exp(-(spectrum + proximal) * end)))
    proximal_bar = jnp.sum(overlap * jnp.diagonal(differences))
    return matrix_bar, vectors_bar, end_bar, proximal_bar


_apply_mean_decay.defvjp(_forward, _backward)


def follow_linear_flow(
    in_span: bool, parameters: HeadParameters, constants: tuple[Array, Array], end: Scalar
) -> Float[Array, "_ way"]:
    r"""Return $u(T)$ of the squared error's flow from $u(0) = 0$, differentiable in `parameters` and `end`.

    - `in_span`, `parameters`, `constants`: as in `comln.flow.head_flow.HeadFlow`.
    - `end`: $T \ge 0$ in the units of the flow; may be infinite.

    **Example:** one example at logit 0 with label 1, and $G = 1$: the logit is $1 - e^{-T}$.

    >>> one, end = jnp.ones((1, 1)), jnp.log(2.0)
    >>> follow_linear_flow(True, HeadParameters(one, 0 * one, jnp.zeros(())), (one, jnp.ones(1)), end).round(6).tolist()
    [[0.5]]
    """
    labels, share = constants
    root = jnp.sqrt(share)[:, None]
    offset = root * (parameters.initial_logits - labels)
    weighted = root * parameters.factor
    if in_span:
        return -root * _apply_mean_decay(weighted * root.T, offset, end, parameters.proximal)
    return -_apply_mean_decay(weighted.T @ weighted, weighted.T @ offset, end, parameters.proximal)
