r"""An adaptive solve with its own reverse mode, for many small autonomous problems at once.

Forward, a step rule follows $\dot y = f(y; \theta)$ from $y(0)$ to $y(T)$. Backward, every accepted step
$y_{k+1} = \Psi_{h_k}(y_k; \theta)$ is run again from the stored $y_k$ and transposed,

$$ \bar y_k = \Bigl(\frac{\partial \Psi}{\partial y}\Bigr)^{\!\top} \bar y_{k+1}, \qquad
   \bar\theta \mathrel{+}= \Bigl(\frac{\partial \Psi}{\partial \theta}\Bigr)^{\!\top} \bar y_{k+1}, \qquad
   \bar T = \langle \bar y(T), f(y(T)) \rangle, $$

which is exact for the discretised flow at fixed step sizes, and stable, since nothing is integrated backwards in time.

**Steps.** As long as the estimated error allows, and no longer than the backward sweep needs
(`comln.flow.step_rules`). A lane where its limit of stability holds the explicit rule back, with many such steps to
come, waits until the other lanes have come to their end or wait as well; then the implicit rule goes on with it.

**Memory.** Adaptive steps are few: all are kept, and their number is limited by the room for them (`System.slots`,
which does not depend on the limit on steps that a user sets). Fixed steps may be many: of them at most `SLOTS` are
kept. When they are full every second one is dropped and the stride between the kept ones doubles; backward, the steps
between two kept states are then taken again, and beyond `SLOTS` squared steps their number grows quadratically.

**Lanes.** All arrays inside have a leading lane axis, and the loops run on while any lane is active, each lane with its
own step size. `jax.vmap` adds lanes (it would otherwise copy the store at every step), so that a batch of tasks is one
loop. A lane that has finished or rejected its step takes a step of length zero, whose transpose is the identity.
"""

__all__ = [
    "ADAPTIVE_SLOTS",
    "FINISHED",
    "OUT_OF_STEPS",
    "SLOTS",
    "UNDERFLOW",
    "WORTH_SWITCHING",
    "Followed",
    "Knots",
    "System",
    "add_lanes_by_vmap",
    "follow",
    "follow_keeping_knots",
]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.flow.highest_precision import at_highest_precision
from comln.flow.step_rules import Rate, Resolvent, RosenbrockRule, StepRule
from comln.typing import Array, Bool, Float, Int, Scalar

SLOTS = 128
"""How many states of a solve by fixed steps are kept for the backward pass."""

ADAPTIVE_SLOTS = 256
"""How many attempts an adaptive solve may make at a tolerance of 1e-5; more at a tighter one."""

SAFETY, SHRINK, GROW = 0.9, 0.2, 8.0

ACTIVE, FINISHED, OUT_OF_STEPS, UNDERFLOW, STIFF = 0, 1, 2, 3, 4
"""How a lane stands."""

HELD_BACK, WORTH_SWITCHING = 10, 100
"""A lane is stiff if stability held back so many steps in a row, and would hold back so many more at least.

The second is where both rules' steps cost about the same (`System.worth_switching`).
"""

EVERY_MODE = 10
"""How many times the tolerance a step may err in a mode that only the backward sweep excites."""


class System(NamedTuple):
    r"""What is followed, and how.

    - `rule`: how a step is taken. A rule without an error estimate takes steps of length `first_step`.
    - `stiff_rule`: the rule that goes on with lanes that are stiff, if any.
    - `rate`: $f$.
    - `radius`: `radius(state, parameters, constants)` bounds the largest rate of decay, the spectral radius of $f'$.
    - `resolvent`: solves with $f'$; only a Rosenbrock rule asks for it.
    - `rtol`, `atol`: bounds on a step's estimated error, in the maximum norm.
    - `worth_switching`: how many steps to come, held back by stability, the stiff rule is worth; at least
      `WORTH_SWITCHING`. There is room for so many.
    """

    rule: StepRule
    stiff_rule: RosenbrockRule | None
    rate: Rate
    radius: Callable[[Array, Any, Any], Scalar]
    resolvent: Resolvent
    rtol: float
    atol: float
    worth_switching: int = WORTH_SWITCHING

    @property
    def slots(self) -> int:
        """How many attempted steps are kept; all of them, if steps are adaptive."""
        if not self.rule.adaptive:
            return SLOTS
        return self._slots_of_cheap_steps + self.worth_switching - WORTH_SWITCHING

    @property
    def before_stiff(self) -> int:
        """After how many attempts the stiff rule goes on with the lanes that wait for it, whatever the others do."""
        return self.slots - self._slots_of_cheap_steps // 2

    @property
    def _slots_of_cheap_steps(self) -> int:
        return round(ADAPTIVE_SLOTS * max(1.0, (1e-5 / max(self.rtol, self.atol)) ** 0.2))

    def longest(self, rule: StepRule) -> tuple[float, float]:
        """Return the largest step times the radius, and the largest step as a share of the time that remains."""
        tolerance = EVERY_MODE * max(self.rtol, self.atol)
        exponent = 1 / (rule.order + 1)
        ratio = (tolerance / rule.far) ** exponent
        return (tolerance / rule.near) ** exponent, ratio / (1 + ratio)

    def take(
        self, stiff: Bool[Array, ""], state: Array, first: Array, step: Array, parameters: Any, constants: Any
    ) -> tuple[Array, Array, Array]:
        """Take a step in every lane, by the stiff rule or the other; return the states, their rates, the errors."""

        def by(rule: StepRule) -> Callable[..., tuple[Array, Array, Array]]:
            return jax.vmap(functools.partial(rule.take, self.rate, self.resolvent))

        if self.stiff_rule is None:
            return by(self.rule)(state, first, step, parameters, constants)
        return jax.lax.cond(stiff, by(self.stiff_rule), by(self.rule), state, first, step, parameters, constants)


class _Problem(NamedTuple):
    """What a solve needs to know, the lane axis leading in every array.

    - `until`: where to stop: `end`, or before it where a part of the solve is repeated.
    - `stiff`: whether to begin by the stiff rule.
    """

    state: Float[Array, "lane ..."]
    end: Float[Array, " lane"]
    until: Float[Array, " lane"]
    first_step: Float[Array, " lane"]
    most_steps: Int[Array, " lane"]
    stiff: Bool[Array, " lane"]
    parameters: Any
    constants: Any


class _Clock(NamedTuple):
    """Where each lane stands between two attempted steps.

    `held_back` counts the steps in a row that stability limited.
    """

    time: Float[Array, " lane"]
    step: Float[Array, " lane"]
    state: Float[Array, "lane ..."]
    rate: Float[Array, "lane ..."]
    radius: Float[Array, " lane"]
    held_back: Int[Array, " lane"]
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


def _step_length(
    system: System, stiff: Bool[Array, ""], clock: _Clock, problem: _Problem
) -> tuple[Array, Array, Array]:
    """Return the step of every lane, whether it is its last, and whether stability held it back."""
    remaining = problem.until - clock.time
    step, held_back = clock.step, jnp.zeros_like(clock.status, bool)
    if system.rule.adaptive:
        radius = jnp.maximum(clock.radius, jnp.finfo(step.dtype).tiny)
        per_radius, per_remaining = (
            _of_rule(system, stiff, lambda rule, i=i: system.longest(rule)[i], step.dtype) for i in (0, 1)
        )
        stable = _of_rule(system, stiff, lambda rule: rule.stability, step.dtype) / radius
        held_back = step > stable
        longest = jnp.maximum(per_radius / radius, per_remaining * (problem.end - clock.time))
        step = jnp.minimum(step, jnp.minimum(longest, stable))
    last = step >= 0.999 * remaining
    step = jnp.where(last, remaining, step)
    return jnp.where(clock.status == ACTIVE, step, 0.0), last, held_back


def _of_rule(system: System, stiff: Bool[Array, ""], value: Callable[[StepRule], float], dtype: Any) -> Array:
    """Return a property of the rule in use."""
    other = jnp.asarray(value(system.rule), dtype)
    return other if system.stiff_rule is None else jnp.where(stiff, jnp.asarray(value(system.stiff_rule), dtype), other)


def _attempt(
    system: System, stiff: Bool[Array, ""], clock: _Clock, problem: _Problem
) -> tuple[_Clock, Float[Array, " lane"]]:
    """Attempt one step in every active lane; return where the lanes stand then, and the steps taken (0 if rejected)."""
    active = clock.status == ACTIVE
    step, last, limited = _step_length(system, stiff, clock, problem)
    new, new_rate, error = system.take(stiff, clock.state, clock.rate, step, problem.parameters, problem.constants)
    size, radius = jax.vmap(functools.partial(_judge, system))(
        clock.state, new, error, problem.parameters, problem.constants
    )
    accept = active & (size <= 1.0)
    # A NaN fails every comparison: it rejects the step and shrinks the next one as far as one step may.
    finite = size < jnp.inf
    if system.rule.adaptive:
        exponent = _of_rule(system, stiff, lambda rule: -1 / rule.order, step.dtype)
        factor = jnp.where(finite, jnp.clip(SAFETY * jnp.where(finite, size, 1.0) ** exponent, SHRINK, GROW), SHRINK)
    else:
        factor = jnp.where(finite, 1.0, 0.0)
    time = jnp.where(accept, jnp.where(last, problem.until, clock.time + step), clock.time)
    next_step = jnp.where(active, factor * step, clock.step)
    attempts = clock.attempts + active.astype(clock.attempts.dtype)
    held_back = jnp.where(limited, clock.held_back + 1, 0)
    radius = jnp.where(accept, radius, clock.radius)

    tiny = 4 * jnp.finfo(step.dtype).eps * clock.time + jnp.finfo(step.dtype).tiny
    status = jnp.where(active & (attempts >= problem.most_steps), OUT_OF_STEPS, clock.status)
    if system.stiff_rule is not None:
        to_come = radius * (problem.end - time) / system.rule.stability
        is_stiff = active & ~stiff & (held_back >= HELD_BACK) & (to_come > system.worth_switching)
        status = jnp.where(is_stiff & (status == ACTIVE), STIFF, status)
    status = jnp.where(active & ~accept & (next_step <= tiny), UNDERFLOW, status)
    status = jnp.where(accept & last, FINISHED, status)
    keep = _per_lane(accept, new)
    moved = _Clock(
        time,
        next_step,
        jnp.where(keep, new, clock.state),
        jnp.where(keep, new_rate, clock.rate),
        radius,
        held_back.astype(clock.held_back.dtype),
        status.astype(clock.status.dtype),
        attempts,
    )
    return moved, jnp.where(accept, step, 0.0)


def _judge(
    system: System, state: Array, new: Array, error: Array, parameters: Any, constants: Any
) -> tuple[Scalar, Scalar]:
    """Return the error of one lane's step over the tolerance, and the radius at the new state."""
    if not system.rule.adaptive:
        return jnp.where(jnp.all(jnp.isfinite(new)), 1.0, jnp.inf).astype(new.dtype), jnp.zeros((), new.dtype)
    scale = system.atol + system.rtol * jnp.maximum(jnp.abs(state), jnp.abs(new))
    return jnp.max(jnp.abs(error) / scale), system.radius(new, parameters, constants)


def _start(system: System, problem: _Problem, time: Float[Array, " lane"], step: Float[Array, " lane"]) -> _Clock:
    first = jax.vmap(system.rate)(problem.state, problem.parameters, problem.constants)
    radius = jnp.zeros_like(time)
    if system.rule.adaptive:
        radius = jax.vmap(system.radius)(problem.state, problem.parameters, problem.constants)
    status = jnp.where(time < problem.until, ACTIVE, FINISHED).astype(jnp.int32)
    if system.stiff_rule is not None:
        status = jnp.where((status == ACTIVE) & problem.stiff, STIFF, status)
    none = jnp.zeros_like(status)
    return _Clock(time, step, problem.state, first, radius, none, status, none)


def _any_active(clock: _Clock) -> Bool[Array, ""]:
    return jnp.any((clock.status == ACTIVE) | (clock.status == STIFF))


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


class _Progress(NamedTuple):
    """How many steps were attempted in all, and from which on by the stiff rule."""

    attempted: Int[Array, ""]
    switched: Int[Array, ""]

    @property
    def stiff(self) -> Bool[Array, ""]:
        """Whether the stiff rule is in use."""
        return self.attempted >= self.switched


_NEVER = jnp.iinfo(jnp.int32).max


def _turn(system: System, progress: _Progress, clock: _Clock) -> tuple[_Progress, _Clock]:
    """Turn to the stiff rule if only lanes that wait for it are left, or it is time to leave it room."""
    if system.stiff_rule is None:
        return progress, clock
    waits = clock.status == STIFF
    turns = ~progress.stiff & (~jnp.any(clock.status == ACTIVE) | (progress.attempted >= system.before_stiff))
    status = jnp.where(turns & waits, ACTIVE, clock.status).astype(clock.status.dtype)
    return progress._replace(switched=jnp.where(turns, progress.attempted, progress.switched)), clock._replace(
        status=status
    )


def _within_room(system: System, progress: _Progress, clock: _Clock) -> _Clock:
    """Return the clock with no lane going on once there is no room for what it would do."""
    if not system.rule.adaptive:
        return clock
    going = (clock.status == ACTIVE) | (clock.status == STIFF)
    status = jnp.where(going & (progress.attempted >= system.slots), OUT_OF_STEPS, clock.status)
    return clock._replace(status=status.astype(clock.status.dtype))


def _begin(system: System, problem: _Problem) -> tuple[_Progress, _Clock]:
    progress = _Progress(jnp.zeros((), jnp.int32), jnp.asarray(_NEVER, jnp.int32))
    return progress, _start(system, problem, jnp.zeros_like(problem.end), problem.first_step)


def _solve(system: System, problem: _Problem) -> _Clock:
    """Follow every lane to its end, keeping nothing."""

    def advance(carry: tuple[_Progress, _Clock]) -> tuple[_Progress, _Clock]:
        progress, clock = _turn(system, *carry)
        moved, _ = _attempt(system, progress.stiff, clock, problem)
        progress = progress._replace(attempted=progress.attempted + 1)
        return progress, _within_room(system, progress, moved)

    return jax.lax.while_loop(lambda carry: _any_active(carry[1]), advance, _begin(system, problem))[1]


class _Kept(NamedTuple):
    """What the backward pass starts from; all but the store are the same in every lane."""

    store: _Attempts
    attempts: Int[Array, " lane"]
    stride: Int[Array, " lane"]
    switched: Int[Array, " lane"]


def _solve_and_keep(system: System, problem: _Problem) -> tuple[_Clock, _Kept]:
    """Follow every lane to its end, keeping every `stride`-th attempt."""
    slots = system.slots
    progress, clock = _begin(system, problem)
    # One slot more than is kept, to write to where an attempt is not kept.
    carry = (progress, jnp.ones((), jnp.int32), clock, _empty_store(clock, slots + 1))

    def go_on(carry: tuple[_Progress, Array, _Clock, _Attempts]) -> Array:
        return _any_active(carry[2])

    def has_room(carry: tuple[_Progress, Array, _Clock, _Attempts]) -> Array:
        return go_on(carry) & (carry[0].attempted < slots * carry[1])

    def advance(carry: tuple[_Progress, Array, _Clock, _Attempts]) -> tuple[_Progress, Array, _Clock, _Attempts]:
        progress, stride, clock, store = carry
        progress, clock = _turn(system, progress, clock)
        moved, taken = _attempt(system, progress.stiff, clock, problem)
        count = progress.attempted
        slot = jnp.where(count % stride == 0, count // stride, slots)
        progress = progress._replace(attempted=count + 1)
        return progress, stride, _within_room(system, progress, moved), _write(store, slot, clock, taken)

    def thin(carry: tuple[_Progress, Array, _Clock, _Attempts]) -> tuple[_Progress, Array, _Clock, _Attempts]:
        progress, stride, clock, store = carry
        every_second = jnp.minimum(2 * jnp.arange(slots + 1), slots)
        return progress, 2 * stride, clock, jax.tree.map(lambda x: x[every_second], store)

    def fill(carry: tuple[_Progress, Array, _Clock, _Attempts]) -> tuple[_Progress, Array, _Clock, _Attempts]:
        filled = jax.lax.while_loop(has_room, advance, carry)
        return jax.lax.cond(go_on(filled), thin, lambda carry: carry, filled)

    progress, stride, clock, store = jax.lax.while_loop(go_on, advance if system.rule.adaptive else fill, carry)
    lanes = problem.end.shape
    return clock, _Kept(store, *(jnp.broadcast_to(x, lanes) for x in (progress.attempted, stride, progress.switched)))


def _transpose(
    system: System,
    attempts: _Attempts,
    knots_bar: Array | None,
    first: Int[Array, ""],
    past: Int[Array, ""],
    switched: Int[Array, ""],
    state_bar: Array,
    parameters_bar: Any,
    problem: _Problem,
) -> tuple[Array, Any]:
    """Pull cotangents back through the attempts `past - 1, ..., first` (slots modulo their number).

    Where `knots_bar` is given, the cotangent of the state in each slot is added when the sweep comes by.
    """

    def pull(rule: StepRule) -> Callable[..., tuple[Array, Any]]:
        def one_lane(state: Array, step: Array, state_bar: Array, parameters: Any, constants: Any) -> tuple[Array, Any]:
            def take(state: Array, parameters: Any) -> Array:
                first = system.rate(state, parameters, constants)
                return rule.take(system.rate, system.resolvent, state, first, step, parameters, constants)[0]

            return jax.vjp(take, state, parameters)[1](state_bar)

        return jax.vmap(one_lane)

    def back(carry: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        past, state_bar, parameters_bar = carry
        slot = (past - 1) % attempts.taken.shape[0]
        arguments = (attempts.states[slot], attempts.taken[slot], state_bar, problem.parameters, problem.constants)
        if system.stiff_rule is None:
            state_bar, more = pull(system.rule)(*arguments)
        else:
            stiff = past > switched
            state_bar, more = jax.lax.cond(stiff, pull(system.stiff_rule), pull(system.rule), *arguments)
        if knots_bar is not None:
            state_bar = state_bar + knots_bar[slot]
        return past - 1, state_bar, jax.tree.map(jnp.add, parameters_bar, more)

    _, state_bar, parameters_bar = jax.lax.while_loop(lambda c: c[0] > first, back, (past, state_bar, parameters_bar))
    return state_bar, parameters_bar


def _pull_back(
    system: System,
    kept: _Kept,
    knots_bar: Array | None,
    reached: Float[Array, " lane"],
    state_bar: Array,
    problem: _Problem,
) -> tuple[Array, Any]:
    """Pull cotangents at time `reached` (and those of the kept states, if any) back to time zero.

    Where every attempt was kept, they are transposed as they are. Where only every `stride`-th was, the steps from a
    kept state to the time already reached backwards are taken again, the last `SLOTS` of them are transposed, and so on
    until the kept state itself is reached; then comes the kept state before it.
    """
    store, count, stride, switched = kept.store, *(jnp.max(x) for x in (kept.attempts, kept.stride, kept.switched))
    parameters_bar = jax.tree.map(jnp.zeros_like, problem.parameters)
    if system.rule.adaptive:
        none = jnp.zeros_like(count)
        return _transpose(system, store, knots_bar, none, count, switched, state_bar, parameters_bar, problem)
    whole = stride == 1
    segments = jnp.where(whole, jnp.minimum(count, 1), (count + stride - 1) // stride)
    unlimited = jnp.full_like(problem.most_steps, _NEVER)

    def again(carry: tuple[Array, Array, Array, Any]) -> tuple[Array, Array, Array, Any]:
        segment, reached, state_bar, parameters_bar = carry
        began = store.times[segment]
        part = problem._replace(state=store.states[segment], until=reached, most_steps=unlimited)
        clock = _start(system, part, began, store.steps[segment])

        def advance(carry: tuple[Array, _Clock, _Attempts]) -> tuple[Array, _Clock, _Attempts]:
            taken_again, clock, ring = carry
            moved, taken = _attempt(system, jnp.asarray(False), clock, part)
            return taken_again + 1, moved, _write(ring, taken_again % SLOTS, clock, taken)

        ring = jax.tree.map(lambda x: x[:SLOTS], store)
        taken_again, _, ring = jax.lax.while_loop(
            lambda c: _any_active(c[1]) & ~whole, advance, (jnp.zeros((), jnp.int32), clock, ring)
        )
        past = jnp.where(whole, count, taken_again)
        first = jnp.maximum(past - SLOTS, 0)
        slots_bar = None if knots_bar is None else jnp.where(whole, knots_bar[:SLOTS], 0.0)
        state_bar, parameters_bar = _transpose(
            system, ring, slots_bar, first, past, switched, state_bar, parameters_bar, part
        )
        # The slot of `first` holds the oldest attempt that was transposed; with none, the segment is already behind us.
        oldest = ring.times[first % SLOTS]
        reached = jnp.where((past > 0) & ~whole, jnp.minimum(oldest, reached), began)
        done = jnp.all(reached <= began)
        if knots_bar is not None:
            state_bar = state_bar + jnp.where(done & ~whole, knots_bar[segment], 0.0)
        return segment - done.astype(segment.dtype), reached, state_bar, parameters_bar

    carry = (segments - 1, reached, state_bar, parameters_bar)
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, again, carry)[2:]


def add_lanes_by_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, with lanes as axis 0 of every argument and result, so that `jax.vmap` adds lanes to it."""

    @jax.custom_batching.custom_vmap
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    @call.def_vmap
    def _(size: int, batched: Any, *arguments: Any) -> Any:
        def merge(x: Array, is_batched: bool) -> Array:
            x = x if is_batched else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(size * x.shape[1], *x.shape[2:])

        def split(x: Array) -> Array:
            return x.reshape(size, x.shape[0] // size, *x.shape[1:])

        results = jax.tree.map(split, call(*jax.tree.map(merge, arguments, tuple(batched))))
        return results, jax.tree.map(lambda _: True, results)

    return call


class Followed(NamedTuple):
    """How far a solve came: the state that it reached, how it ended, and its attempted steps."""

    state: Float[Array, "..."]
    status: Int[Array, ""]
    attempts: Int[Array, ""]


class Knots(NamedTuple):
    """States that a solve passed, in order, one a slot, with the steps that it then tried and by which rule.

    A slot that was not used holds an infinite time.
    """

    states: Float[Array, "slot ..."]
    times: Float[Array, " slot"]
    steps: Float[Array, " slot"]
    stiff: Bool[Array, " slot"]


def _swap_slots_and_lanes(store: _Attempts) -> _Attempts:
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), store)


def _solver(system: System) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return `_solve`, `_solve_and_keep` and `_pull_back`, lanes first in all that they take and return."""

    def solve_and_keep(problem: _Problem) -> tuple[_Clock, _Kept]:
        clock, kept = _solve_and_keep(system, problem)
        return clock, kept._replace(store=_swap_slots_and_lanes(kept.store))

    def pull_back(
        kept: _Kept, clock: _Clock, state_bar: Array, knots_bar: Array | None, problem: _Problem
    ) -> tuple[Array, Array, Any]:
        kept = kept._replace(store=_swap_slots_and_lanes(kept.store))
        knots_bar = None if knots_bar is None else jnp.moveaxis(knots_bar, 0, 1)
        end_bar = jax.vmap(lambda a, b: jnp.sum(a * b))(state_bar, clock.rate)
        state_bar, parameters_bar = _pull_back(system, kept, knots_bar, clock.time, state_bar, problem)
        return state_bar, jnp.where(clock.status == FINISHED, end_bar, 0.0), parameters_bar

    return (
        add_lanes_by_vmap(lambda problem: _solve(system, problem)),
        add_lanes_by_vmap(solve_and_keep),
        add_lanes_by_vmap(pull_back),
    )


def _one_lane(
    state: Array,
    end: Array,
    first_step: Array,
    most_steps: Array,
    parameters: Any,
    constants: Any,
    stiff: Array | None,
) -> _Problem:
    stiff = jnp.asarray(False) if stiff is None else stiff
    problem = _Problem(state, end, end, first_step, most_steps.astype(jnp.int32), stiff, parameters, constants)
    return jax.tree.map(lambda x: x[None], problem)


def _followed(clock: _Clock) -> Followed:
    return Followed(clock.state, clock.status, clock.attempts)


def follow(
    system: System,
    state: Float[Array, "..."],
    end: Scalar,
    first_step: Scalar,
    most_steps: Int[Array, ""],
    parameters: Any,
    constants: Any,
    stiff: Bool[Array, ""] | None = None,
) -> Followed:
    r"""Return where $\dot y = f(y; \theta)$ is at time $T$.

    Differentiable in reverse mode in `state`, `end` and `parameters`; `jax.vmap` makes one loop of a batch.

    **Arguments:**
    - `system`: $f$, and how it is followed.
    - `state`: $y(0)$.
    - `end`: $T \ge 0$, finite. A solve that failed has no gradient in it.
    - `first_step`: the length of the first attempt.
    - `most_steps`: limit on attempted steps.
    - `parameters`: $\theta$, a pytree of arrays. `constants`: what $f$ needs and is not differentiated in.
    - `stiff`: whether to begin by the stiff rule.
    """
    solve, solve_and_keep, pull_back = _solver(system)

    @jax.custom_vjp
    def run(problem: _Problem) -> Followed:
        return _followed(solve(problem))

    @at_highest_precision
    def run_forward(problem: _Problem) -> Any:
        clock, kept = solve_and_keep(problem)
        return _followed(clock), (problem, clock, kept)

    @at_highest_precision
    def run_backward(residuals: Any, cotangents: Followed) -> Any:
        problem, clock, kept = residuals
        return (_cotangent(problem, *pull_back(kept, clock, cotangents.state, None, problem)),)

    run.defvjp(run_forward, run_backward)
    followed = run(_one_lane(state, end, first_step, most_steps, parameters, constants, stiff))
    return jax.tree.map(lambda x: x[0], followed)


def follow_keeping_knots(
    system: System,
    state: Float[Array, "..."],
    end: Scalar,
    first_step: Scalar,
    most_steps: Int[Array, ""],
    parameters: Any,
    constants: Any,
) -> tuple[Followed, Knots]:
    """Do as `follow` does, and return besides the kept states, differentiable as well: the first is `state`."""
    _, solve_and_keep, pull_back = _solver(system)

    @jax.custom_vjp
    def run(problem: _Problem) -> tuple[Followed, Knots]:
        return run_forward(problem)[0]

    @at_highest_precision
    def run_forward(problem: _Problem) -> Any:
        clock, kept = solve_and_keep(problem)
        used = -(-kept.attempts // kept.stride)
        slot = jnp.arange(system.slots + 1, dtype=used.dtype)[None, :]
        times = jnp.where(slot >= used[:, None], jnp.inf, kept.store.times)
        knots = Knots(kept.store.states, times, kept.store.steps, slot >= kept.switched[:, None])
        return (_followed(clock), knots), (problem, clock, kept)

    @at_highest_precision
    def run_backward(residuals: Any, cotangents: tuple[Followed, Knots]) -> Any:
        problem, clock, kept = residuals
        followed_bar, knots_bar = cotangents
        bars = pull_back(kept, clock, followed_bar.state, knots_bar.states, problem)
        return (_cotangent(problem, *bars),)

    run.defvjp(run_forward, run_backward)
    results = run(_one_lane(state, end, first_step, most_steps, parameters, constants, None))
    return jax.tree.map(lambda x: x[0], results)


def _cotangent(problem: _Problem, state_bar: Array, end_bar: Array, parameters_bar: Any) -> _Problem:
    """Return the cotangent of `problem`, which depends on `end` by `end` alone."""

    def none(x: Array) -> Any:
        return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0)

    return _Problem(
        state=state_bar,
        end=end_bar,
        until=jnp.zeros_like(end_bar),
        first_step=jnp.zeros_like(end_bar),
        most_steps=none(problem.most_steps),
        stiff=none(problem.stiff),
        parameters=parameters_bar,
        constants=jax.tree.map(none, problem.constants),
    )
