r"""A gradient flow followed forwards only, by stabilised explicit steps, with visits on the way.

The second-order Runge-Kutta-Chebyshev method (Sommeijer, Shampine and Verwer, 1998): one step of $s$ stages is stable
for $h\rho \le 0.65\,(s^2 - 1)$, where $\rho$ is the fastest rate of decay. So a flow that is held back by its
stability, as all are whose classes overlap or whose examples outnumber their features, costs evaluations in proportion
to $\sqrt{T}$, not to $T$, and no linear system is solved. With $T_j$ the Chebyshev polynomials,
$w_0 = 1 + \epsilon/s^2$, $w_1 = T_s'(w_0)/T_s''(w_0)$ and $b_j = T_j''(w_0)/T_j'(w_0)^2$ the stages are

$$ Y_j = (1 - \mu_j - \nu_j)\,y + \mu_j Y_{j-1} + \nu_j Y_{j-2} + \tilde\mu_j h f(Y_{j-1}) + \tilde\gamma_j h f(y). $$

Between the ends of a step the state is the cubic through both that has their rates. $\rho$ is estimated by the power
method, one product with the Hessian a step. Nothing is kept, and there is no backward sweep; `comln.flow.kept_steps`
has one.
"""

__all__ = ["Ending", "follow_visiting"]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.typing import Array, Bool, Float, Int, Scalar

MOST_STAGES = 64
"""Stages of the longest step."""

DAMPING = 2 / 13
r"""$\epsilon$."""

POWER_STEPS, RADIUS_SAFETY = 12, 1.2
"""Steps of the power method before the first step of the flow, and what its estimate, from below, is multiplied by."""

SAFETY, SHRINK, GROW = 0.8, 0.1, 5.0


class Ending(NamedTuple):
    """How a flow was followed.

    - `carry`: what the visits made.
    - `visited`: how many stops were visited. `steps`: attempted steps.
    """

    carry: Any
    visited: Int[Array, ""]
    steps: Int[Array, ""]


class _Place(NamedTuple):
    """Where the flow stands between two attempted steps."""

    time: Scalar
    step: Scalar
    state: Array
    rate: Array
    direction: Array
    radius: Scalar
    attempts: Int[Array, ""]
    stop: Int[Array, ""]
    going: Bool[Array, ""]
    carry: Any


@functools.cache
def _coefficients() -> np.ndarray:
    r"""Return $\mu, \nu, \tilde\mu, \tilde\gamma$ for each number of stages and stage, shape `(stages, stage, 4)`."""
    table = np.zeros((MOST_STAGES + 1, MOST_STAGES + 1, 4))
    for stages in range(2, MOST_STAGES + 1):
        w0 = 1 + DAMPING / stages**2
        value, slope, bend = np.zeros((3, stages + 1))
        value[:2], slope[1] = (1, w0), 1
        for j in range(2, stages + 1):
            value[j] = 2 * w0 * value[j - 1] - value[j - 2]
            slope[j] = 2 * value[j - 1] + 2 * w0 * slope[j - 1] - slope[j - 2]
            bend[j] = 4 * slope[j - 1] + 2 * w0 * bend[j - 1] - bend[j - 2]
        w1 = slope[stages] / bend[stages]
        b = np.zeros(stages + 1)
        b[2:] = bend[2:] / slope[2:] ** 2
        b[:2] = b[2]
        a = 1 - b * value
        table[stages, 1, 2] = b[1] * w1
        for j in range(2, stages + 1):
            mu = 2 * b[j] * w0 / b[j - 1]
            mu_rate = 2 * b[j] * w1 / b[j - 1]
            table[stages, j] = mu, -b[j] / b[j - 2], mu_rate, -a[j - 1] * mu_rate
    return table


def _take(rate: Callable[[Array], Array], place: _Place, step: Scalar, stages: Array) -> tuple[Array, Array]:
    """Return the state a step later and the rate there."""
    start, first = place.state, place.rate
    rows = jnp.asarray(_coefficients(), start.dtype)[stages]

    def stage(j: Array, last: tuple[Array, Array]) -> tuple[Array, Array]:
        before, now = last
        mu, nu, mu_rate, gamma_rate = rows[j]
        new = start + mu * (now - start) + nu * (before - start) + step * (mu_rate * rate(now) + gamma_rate * first)
        return now, new

    _, end = jax.lax.fori_loop(2, stages + 1, stage, (start, start + step * rows[1, 2] * first))
    return end, rate(end)


def follow_visiting(
    rate: Callable[[Array], Array],
    multiply_hessian: Callable[[Array, Array], Array],
    state: Float[Array, "..."],
    direction: Float[Array, "..."],
    stops: Float[Array, " stop"],
    visit: Callable[[Any, Int[Array, ""], Array], tuple[Any, Bool[Array, ""] | bool]],
    carry: Any,
    tol: float,
    most_steps: int,
) -> Ending:
    r"""Follow $\dot y = f(y)$ from $y(0)$ and visit it at given times, as long as the visits want to go on.

    **Arguments:**
    - `rate`: $f$, of a symmetric negative semi-definite derivative.
    - `multiply_hessian`: `multiply_hessian(y, v)` returns $-f'(y)v$.
    - `state`: $y(0)$.
    - `direction`: where the power method begins; any that is not orthogonal to the fastest mode will do.
    - `stops`: times in order, at least zero, finite.
    - `visit`: `visit(carry, number_of_stop, state)` returns the new `carry` and whether to go on.
    - `tol`: bound on the estimated error of a step, relative to one plus the state, in the maximum norm.
    - `most_steps`: limit on attempted steps; it ends the way before the stops that are then left.

    **Example:** $\dot y = -y$ from 1, visited at $\log 2$.

    >>> one, stops = jnp.ones(1), jnp.log(jnp.array([2.0]))
    >>> ending = follow_visiting(
    ...     lambda y: -y, lambda y, v: v, one, one, stops, lambda _, stop, y: (y, True), one, tol=1e-6, most_steps=1000
    ... )
    >>> ending.carry.round(4).tolist(), int(ending.visited)
    ([0.5], 1)
    """
    dtype = state.dtype
    tiny = jnp.asarray(jnp.finfo(dtype).tiny, dtype)
    most = 0.65 * (MOST_STAGES**2 - 1)
    count, end = len(stops), stops[-1]

    def power(state: Array, direction: Array) -> tuple[Array, Scalar]:
        product = multiply_hessian(state, direction)
        length = jnp.sqrt(jnp.sum(jnp.square(product)))
        return jnp.where(length > tiny, product / jnp.maximum(length, tiny), direction), length

    def visit_those_before(place: _Place, time: Scalar, new: Array, new_rate: Array) -> _Place:
        """Visit the stops up to `time`, where the state is `new`."""
        length = time - place.time

        def go(place: _Place) -> Array:
            return place.going & (place.stop < count) & (stops[jnp.minimum(place.stop, count - 1)] <= time)

        def one(now: _Place) -> _Place:
            x = jnp.where(length > 0, (stops[now.stop] - place.time) / jnp.where(length > 0, length, 1.0), 1.0)
            between = (
                (1 - x) * place.state
                + x * new
                + x * (x - 1) * ((1 - 2 * x) * (new - place.state) + length * ((x - 1) * place.rate + x * new_rate))
            )
            carry, going = visit(now.carry, now.stop, between)
            return now._replace(carry=carry, going=jnp.asarray(going), stop=now.stop + 1)

        return jax.lax.while_loop(go, one, place)

    def advance(place: _Place) -> _Place:
        direction, radius = power(place.state, place.direction)
        radius = jnp.maximum(RADIUS_SAFETY * radius, tiny)
        remaining = end - place.time
        step = jnp.minimum(place.step, most / radius)
        last = step >= 0.999 * remaining
        step = jnp.where(last, remaining, step)
        stages = 1 + jnp.sqrt(1 + 1.54 * step * radius).astype(jnp.int32)
        stages = jnp.clip(stages, 2, MOST_STAGES)
        new, new_rate = _take(rate, place, step, stages)
        error = 0.8 * (place.state - new) + 0.4 * step * (place.rate + new_rate)
        scale = tol * (1 + jnp.maximum(jnp.abs(place.state), jnp.abs(new)))
        size = jnp.max(jnp.abs(error) / scale)
        finite = size < jnp.inf
        accept = finite & (size <= 1)
        size = jnp.maximum(jnp.where(finite, size, jnp.inf), tiny)
        factor = jnp.clip(SAFETY * size ** (-1 / 3), SHRINK, GROW)
        time = jnp.where(last, end, place.time + step)
        visited = visit_those_before(place, jnp.where(accept, time, -1.0), new, new_rate)
        return visited._replace(
            time=jnp.where(accept, time, place.time),
            step=step * factor,
            state=jnp.where(accept, new, place.state),
            rate=jnp.where(accept, new_rate, place.rate),
            direction=direction,
            radius=radius,
            attempts=place.attempts + 1,
        )

    def goes_on(place: _Place) -> Array:
        moving = place.time + 4 * jnp.finfo(dtype).eps * place.time < place.time + place.step
        return place.going & (place.stop < count) & (place.attempts < most_steps) & moving

    direction, radius = jax.lax.fori_loop(
        0, POWER_STEPS, lambda _, guess: power(state, guess[0]), (direction, jnp.zeros((), dtype))
    )
    zero = jnp.zeros((), jnp.int32)
    first = rate(state)
    start = _Place(
        time=jnp.zeros((), dtype),
        step=jnp.where(radius > tiny, 0.25 / jnp.maximum(radius, tiny), jnp.maximum(end, 1.0)),
        state=state,
        rate=first,
        direction=direction,
        radius=radius,
        attempts=zero,
        stop=zero,
        going=jnp.asarray(True),
        carry=carry,
    )
    start = visit_those_before(start, start.time, state, first)
    place = jax.lax.while_loop(goes_on, advance, start)
    return Ending(place.carry, place.stop, place.attempts)
