r"""A lean adaptive Runge-Kutta solve with its own reverse mode, for many small autonomous problems at once.

Forward, an embedded pair follows $\dot y = f(y; \theta)$ from $y(0)$ to $y(T)$. Backward, every accepted step
$y_{k+1} = \Psi_{h_k}(y_k; \theta)$ is run again from the stored $y_k$ and transposed,

$$ \bar y_k = \Bigl(\frac{\partial \Psi}{\partial y}\Bigr)^{\!\top} \bar y_{k+1}, \qquad
   \bar\theta \mathrel{+}= \Bigl(\frac{\partial \Psi}{\partial \theta}\Bigr)^{\!\top} \bar y_{k+1}, \qquad
   \bar T = \langle \bar y(T), f(y(T)) \rangle, $$

which is exact for the discretised flow at fixed step sizes, and stable, since nothing is integrated backwards in time.

**Memory.** At most `SLOTS` states are kept. When they are full every second one is dropped and the stride between
the kept ones doubles; backward, the steps between two kept states are then taken again. A solve that fits takes no
step again, and the limit on steps costs nothing; beyond `SLOTS` squared steps their number grows quadratically.

**Lanes.** All arrays inside have a leading lane axis, and the loops run on while any lane is active, each lane with its
own step size. `jax.vmap` adds lanes (it would otherwise copy the store at every step), so that a batch of tasks is one
loop. A lane that has finished or rejected its step takes a step of length zero, whose transpose is the identity.
"""

__all__ = ["SLOTS", "follow"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from comln.flow.tableaus import Tableau
from comln.typing import Array, Bool, Float, Int, Scalar

SLOTS = 128
"""How many states are kept for the backward pass."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0

ACTIVE, FINISHED, OUT_OF_STEPS, UNDERFLOW = 0, 1, 2, 3
"""How a lane stands."""

Rate = Callable[[Array, Any, Any], Array]


class _Problem(NamedTuple):
    """What a solve needs to know, the lane axis leading in every array."""

    state: Float[Array, "lane ..."]
    end: Float[Array, " lane"]
    first_step: Float[Array, " lane"]
    parameters: Any
    constants: Any


class _Clock(NamedTuple):
    """Where each lane stands between two attempted steps."""

    time: Float[Array, " lane"]
    step: Float[Array, " lane"]
    state: Float[Array, "lane ..."]
    rate: Float[Array, "lane ..."]
    status: Int[Array, " lane"]
    attempts: Int[Array, " lane"]


class _Attempts(NamedTuple):
    """Attempted steps, for the way back: where each began, how long it wanted to be, and how long it was.

    `taken` is zero where a step was rejected or the lane had finished.
    """

    states: Float[Array, "slot lane ..."]
    times: Float[Array, "slot lane"]
    steps: Float[Array, "slot lane"]
    taken: Float[Array, "slot lane"]


def _per_lane(values: Array, like: Array) -> Array:
    """Return `values`, one a lane, with as many axes as `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def _stages(
    tableau: Tableau, rate: Rate, state: Array, first: Array, step: Array, parameters: Any, constants: Any
) -> tuple[Array, list[Array]]:
    """Return the new state of one lane, and the rates at all stages but the last."""
    rates = [first]
    for row in tableau.stages[:-1]:
        increment = sum(a * k for a, k in zip(row, rates, strict=True) if a != 0.0)
        rates.append(rate(state + step * increment, parameters, constants))
    new = state + step * sum(b * k for b, k in zip(tableau.stages[-1], rates, strict=True) if b != 0.0)
    return new, rates


def _attempt(
    tableau: Tableau, rate: Rate, rtol: float, atol: float, clock: _Clock, problem: _Problem
) -> tuple[_Clock, Float[Array, " lane"]]:
    """Attempt one step in every active lane; return where the lanes stand then, and the steps taken (0 if rejected)."""
    active = clock.status == ACTIVE
    remaining = problem.end - clock.time
    last = clock.step >= 0.999 * remaining
    step = jnp.where(active, jnp.where(last, remaining, clock.step), 0.0)

    def one_lane(
        state: Array, first: Array, step: Array, parameters: Any, constants: Any
    ) -> tuple[Array, Array, Array]:
        new, rates = _stages(tableau, rate, state, first, step, parameters, constants)
        new_rate = rate(new, parameters, constants)
        if not tableau.error:
            return new, new_rate, jnp.where(jnp.all(jnp.isfinite(new)), 1.0, jnp.inf).astype(new.dtype)
        error = step * sum(e * k for e, k in zip(tableau.error, [*rates, new_rate], strict=True) if e != 0.0)
        scale = atol + rtol * jnp.maximum(jnp.abs(state), jnp.abs(new))
        return new, new_rate, jnp.max(jnp.abs(error) / scale)

    new, new_rate, error = jax.vmap(one_lane)(clock.state, clock.rate, step, problem.parameters, problem.constants)
    accept = active & (error <= 1.0)
    # A NaN fails every comparison: it rejects the step and shrinks the next one as far as one step may.
    finite = error < jnp.inf
    factor = jnp.where(finite, jnp.clip(SAFETY * jnp.where(finite, error, 1.0) ** -0.2, SHRINK, GROW), SHRINK)
    factor = factor if tableau.error else jnp.where(finite, 1.0, 0.0)
    time = jnp.where(accept, jnp.where(last, problem.end, clock.time + step), clock.time)
    next_step = jnp.where(active, factor * step, clock.step)
    tiny = 4 * jnp.finfo(step.dtype).eps * clock.time + jnp.finfo(step.dtype).tiny
    status = jnp.where(
        accept & last, FINISHED, jnp.where(active & ~accept & (next_step <= tiny), UNDERFLOW, clock.status)
    )
    keep = _per_lane(accept, new)
    moved = _Clock(
        time,
        next_step,
        jnp.where(keep, new, clock.state),
        jnp.where(keep, new_rate, clock.rate),
        status.astype(clock.status.dtype),
        clock.attempts + active.astype(clock.attempts.dtype),
    )
    return moved, jnp.where(accept, step, 0.0)


def _start(rate: Rate, problem: _Problem, time: Float[Array, " lane"], step: Float[Array, " lane"]) -> _Clock:
    first = jax.vmap(rate)(problem.state, problem.parameters, problem.constants)
    status = jnp.where(time < problem.end, ACTIVE, FINISHED).astype(jnp.int32)
    return _Clock(time, step, problem.state, first, status, jnp.zeros_like(status))


def _any_active(clock: _Clock) -> Bool[Array, ""]:
    return jnp.any(clock.status == ACTIVE)


def _empty_store(clock: _Clock, slots: int) -> _Attempts:
    def empty(x: Array) -> Array:
        return jnp.zeros((slots, *x.shape), x.dtype)

    return _Attempts(empty(clock.state), empty(clock.time), empty(clock.step), empty(clock.step))


def _write(store: _Attempts, slot: Int[Array, ""], before: _Clock, taken: Float[Array, " lane"]) -> _Attempts:
    return _Attempts(
        store.states.at[slot].set(before.state),
        store.times.at[slot].set(before.time),
        store.steps.at[slot].set(before.step),
        store.taken.at[slot].set(taken),
    )


def _solve(tableau: Tableau, rate: Rate, rtol: float, atol: float, max_steps: int, problem: _Problem) -> _Clock:
    """Follow every lane to its end, keeping nothing."""

    def go_on(carry: tuple[Array, _Clock]) -> Array:
        return _any_active(carry[1]) & (carry[0] < max_steps)

    def advance(carry: tuple[Array, _Clock]) -> tuple[Array, _Clock]:
        return carry[0] + 1, _attempt(tableau, rate, rtol, atol, carry[1], problem)[0]

    clock = _start(rate, problem, jnp.zeros_like(problem.end), problem.first_step)
    return _out_of_steps(jax.lax.while_loop(go_on, advance, (jnp.zeros((), jnp.int32), clock))[1])


def _out_of_steps(clock: _Clock) -> _Clock:
    return clock._replace(status=jnp.where(clock.status == ACTIVE, OUT_OF_STEPS, clock.status))


class _Kept(NamedTuple):
    """What the backward pass starts from; `attempts` and `stride` are the same in every lane."""

    store: _Attempts
    attempts: Int[Array, " lane"]
    stride: Int[Array, " lane"]


def _solve_and_keep(
    tableau: Tableau, rate: Rate, rtol: float, atol: float, max_steps: int, problem: _Problem
) -> tuple[_Clock, _Kept]:
    """Follow every lane to its end, keeping every `stride`-th attempt."""
    clock = _start(rate, problem, jnp.zeros_like(problem.end), problem.first_step)
    # One slot more than is kept, to write to where an attempt is not kept.
    carry = (jnp.zeros((), jnp.int32), jnp.ones((), jnp.int32), clock, _empty_store(clock, SLOTS + 1))

    def go_on(carry: tuple[Array, Array, _Clock, _Attempts]) -> Array:
        count, _, clock, _ = carry
        return _any_active(clock) & (count < max_steps)

    def fill(carry: tuple[Array, Array, _Clock, _Attempts]) -> tuple[Array, Array, _Clock, _Attempts]:
        def has_room(carry: tuple[Array, Array, _Clock, _Attempts]) -> Array:
            count, stride, _, _ = carry
            return go_on(carry) & (count < SLOTS * stride)

        def advance(carry: tuple[Array, Array, _Clock, _Attempts]) -> tuple[Array, Array, _Clock, _Attempts]:
            count, stride, clock, store = carry
            moved, taken = _attempt(tableau, rate, rtol, atol, clock, problem)
            slot = jnp.where(count % stride == 0, count // stride, SLOTS)
            return count + 1, stride, moved, _write(store, slot, clock, taken)

        filled = jax.lax.while_loop(has_room, advance, carry)
        return jax.lax.cond(go_on(filled), thin, lambda carry: carry, filled)

    def thin(carry: tuple[Array, Array, _Clock, _Attempts]) -> tuple[Array, Array, _Clock, _Attempts]:
        count, stride, clock, store = carry
        every_second = jnp.minimum(2 * jnp.arange(SLOTS + 1), SLOTS)
        return count, 2 * stride, clock, jax.tree.map(lambda x: x[every_second], store)

    count, stride, clock, store = jax.lax.while_loop(go_on, fill, carry)
    lanes = problem.end.shape
    return _out_of_steps(clock), _Kept(store, jnp.broadcast_to(count, lanes), jnp.broadcast_to(stride, lanes))


def _transpose(
    tableau: Tableau,
    rate: Rate,
    attempts: _Attempts,
    first: Int[Array, ""],
    past: Int[Array, ""],
    state_bar: Array,
    parameters_bar: Any,
    problem: _Problem,
) -> tuple[Array, Any]:
    """Pull cotangents back through the attempts `past - 1, ..., first` (slots modulo their number)."""

    def one_lane(state: Array, step: Array, state_bar: Array, parameters: Any, constants: Any) -> tuple[Array, Any]:
        def take(state: Array, parameters: Any) -> Array:
            return _stages(tableau, rate, state, rate(state, parameters, constants), step, parameters, constants)[0]

        return jax.vjp(take, state, parameters)[1](state_bar)

    def back(carry: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        past, state_bar, parameters_bar = carry
        slot = (past - 1) % attempts.taken.shape[0]
        state_bar, more = jax.vmap(one_lane)(
            attempts.states[slot], attempts.taken[slot], state_bar, problem.parameters, problem.constants
        )
        return past - 1, state_bar, jax.tree.map(jnp.add, parameters_bar, more)

    _, state_bar, parameters_bar = jax.lax.while_loop(lambda c: c[0] > first, back, (past, state_bar, parameters_bar))
    return state_bar, parameters_bar


def _pull_back(
    tableau: Tableau,
    rate: Rate,
    rtol: float,
    atol: float,
    kept: _Kept,
    reached: Float[Array, " lane"],
    state_bar: Array,
    problem: _Problem,
) -> tuple[Array, Any]:
    """Pull cotangents at time `reached` back to time zero.

    Where every attempt was kept, they are transposed as they are. Where only every `stride`-th was, the steps from a
    kept state to the time already reached backwards are taken again, the last `SLOTS` of them are transposed, and so on
    until the kept state itself is reached; then comes the kept state before it.
    """
    store, count, stride = kept.store, jnp.max(kept.attempts), jnp.max(kept.stride)
    whole = stride == 1
    segments = jnp.where(whole, jnp.minimum(count, 1), (count + stride - 1) // stride)

    def again(carry: tuple[Array, Array, Array, Any]) -> tuple[Array, Array, Array, Any]:
        segment, reached, state_bar, parameters_bar = carry
        began = store.times[segment]
        part = problem._replace(state=store.states[segment], end=reached)
        clock = _start(rate, part, began, store.steps[segment])

        def advance(carry: tuple[Array, _Clock, _Attempts]) -> tuple[Array, _Clock, _Attempts]:
            taken_again, clock, ring = carry
            moved, taken = _attempt(tableau, rate, rtol, atol, clock, part)
            return taken_again + 1, moved, _write(ring, taken_again % SLOTS, clock, taken)

        ring = jax.tree.map(lambda x: x[:SLOTS], store)
        taken_again, _, ring = jax.lax.while_loop(
            lambda c: _any_active(c[1]) & ~whole, advance, (jnp.zeros((), jnp.int32), clock, ring)
        )
        past = jnp.where(whole, count, taken_again)
        first = jnp.maximum(past - SLOTS, 0)
        state_bar, parameters_bar = _transpose(tableau, rate, ring, first, past, state_bar, parameters_bar, part)
        # The slot of `first` holds the oldest attempt that was transposed; with none, the segment is already behind us.
        oldest = ring.times[first % SLOTS]
        reached = jnp.where((past > 0) & ~whole, jnp.minimum(oldest, reached), began)
        return segment - jnp.all(reached <= began).astype(segment.dtype), reached, state_bar, parameters_bar

    parameters_bar = jax.tree.map(jnp.zeros_like, problem.parameters)
    carry = (segments - 1, reached, state_bar, parameters_bar)
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, again, carry)[2:]


def _add_lanes_by_vmap(function: Callable[..., Any], lane_axes: Any) -> Callable[..., Any]:
    """Return `function`, which works on lanes (axis 0 of every argument), with `jax.vmap` adding lanes to it.

    `lane_axes` holds the lane axis of each result.
    """

    @jax.custom_batching.custom_vmap
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    @call.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> Any:
        def merge(x: Array, is_batched: bool) -> Array:
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        def split(x: Array, axis: int) -> Array:
            shape = (*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
            return jnp.moveaxis(x.reshape(shape), axis, 0)

        results = call(*jax.tree.map(merge, arguments, tuple(batched)))
        results = jax.tree.map(split, results, lane_axes(results))
        return results, jax.tree.map(lambda _: True, results)

    return call


def follow(
    tableau: Tableau,
    rate: Rate,
    rtol: float,
    atol: float,
    max_steps: int,
    state: Float[Array, "..."],
    end: Scalar,
    first_step: Scalar,
    parameters: Any,
    constants: Any,
) -> tuple[Float[Array, "..."], Int[Array, ""], Int[Array, ""]]:
    r"""Return $y(T)$ for $\dot y = f(y; \theta)$, the status of the solve, and the number of attempted steps.

    Differentiable in reverse mode in `state`, `end` and `parameters`; `jax.vmap` makes one loop of a batch.

    **Arguments:**
    - `tableau`: the Runge-Kutta method; one without an error estimate takes steps of length `first_step`.
    - `rate`: $f$, called as `rate(state, parameters, constants)`.
    - `rtol`, `atol`: bounds on a step's estimated error, in the maximum norm.
    - `max_steps`: limit on attempted steps.
    - `state`: $y(0)$.
    - `end`: $T \ge 0$, finite.
    - `first_step`: the length of the first attempt.
    - `parameters`: $\theta$, a pytree of arrays. `constants`: what $f$ needs and is not differentiated in.
    """

    def lane_axes(results: Any) -> Any:
        if isinstance(results, _Clock):
            return jax.tree.map(lambda _: 0, results)
        clock, kept = results
        return jax.tree.map(lambda _: 0, clock), kept._replace(
            store=jax.tree.map(lambda _: 1, kept.store), attempts=0, stride=0
        )

    solve = _add_lanes_by_vmap(lambda problem: _solve(tableau, rate, rtol, atol, max_steps, problem), lane_axes)
    solve_and_keep = _add_lanes_by_vmap(
        lambda problem: _solve_and_keep(tableau, rate, rtol, atol, max_steps, problem), lane_axes
    )

    def pull_back(store_by_lane: Any, kept_scalars: Any, clock: _Clock, state_bar: Array, problem: _Problem) -> Any:
        kept = _Kept(jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), store_by_lane), *kept_scalars)
        end_bar = jax.vmap(lambda a, b: jnp.sum(a * b))(state_bar, clock.rate)
        state_bar, parameters_bar = _pull_back(tableau, rate, rtol, atol, kept, clock.time, state_bar, problem)
        return state_bar, end_bar, parameters_bar

    pull_back_lanes = _add_lanes_by_vmap(pull_back, lambda results: jax.tree.map(lambda _: 0, results))

    @jax.custom_vjp
    def run(state: Array, end: Array, first_step: Array, parameters: Any, constants: Any) -> tuple[Array, Array, Array]:
        clock = solve(_Problem(state, end, first_step, parameters, constants))
        return clock.state, clock.status, clock.attempts

    def run_forward(state: Array, end: Array, first_step: Array, parameters: Any, constants: Any) -> Any:
        problem = _Problem(state, end, first_step, parameters, constants)
        clock, kept = solve_and_keep(problem)
        return (clock.state, clock.status, clock.attempts), (problem, clock, kept)

    def run_backward(residuals: Any, cotangents: Any) -> Any:
        problem, clock, kept = residuals
        store_by_lane = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), kept.store)
        state_bar, end_bar, parameters_bar = pull_back_lanes(
            store_by_lane, (kept.attempts, kept.stride), clock, cotangents[0], problem
        )
        return state_bar, end_bar, None, parameters_bar, None

    run.defvjp(run_forward, run_backward)
    lane = jax.tree.map(lambda x: x[None], (state, end, first_step, parameters, constants))
    new, status, attempts = run(*lane)
    return new[0], status[0], attempts[0]
