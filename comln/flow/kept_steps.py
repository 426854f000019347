r"""Steps that are kept on the way there, and transposed on the way back.

Backward, every accepted step $y_{k+1} = \Psi_{h_k}(y_k; \theta)$ is run again from the stored $y_k$ and transposed,

$$ \bar y_k = \Bigl(\frac{\partial \Psi}{\partial y}\Bigr)^{\!\top} \bar y_{k+1}, \qquad
   \bar\theta \mathrel{+}= \Bigl(\frac{\partial \Psi}{\partial \theta}\Bigr)^{\!\top} \bar y_{k+1}, $$

which is exact for the discretised flow at fixed step sizes, and stable, since nothing is integrated backwards in time.

**Memory.** Adaptive steps are few: all are kept, and their number is limited by the room for them (`System.slots`,
which does not depend on the limit on steps that a user sets). Fixed steps may be many: of them at most `System.slots`
are kept. When they are full every second one is dropped and the stride between the kept ones doubles; backward, the
steps between two kept states are then taken again, and beyond that many squared their number grows quadratically.
"""

__all__ = ["Attempts", "Kept", "follow_and_keep", "pull_cotangents_back"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from comln.flow.lane_steps import (
    NEVER,
    Clock,
    Problem,
    Progress,
    System,
    any_active,
    attempt,
    begin,
    clock_at,
    turn_to_stiff_rule,
    within_room,
)
from comln.flow.step_rules import StepRule
from comln.typing import Array, Float, Int


class Attempts(NamedTuple):
    """Attempted steps, for the way back: where each began, how long it wanted to be, and how long it was.

    `taken` is zero where a step was rejected or the lane had finished.
    """

    states: Float[Array, "slot lane ..."]
    times: Float[Array, "slot lane"]
    steps: Float[Array, "slot lane"]
    taken: Float[Array, "slot lane"]


def _empty_store(clock: Clock, slots: int) -> Attempts:
    def empty(x: Array) -> Array:
        return jnp.zeros((slots, *x.shape), x.dtype)

    return Attempts(empty(clock.state), empty(clock.time), empty(clock.step), empty(clock.step))


def _write(store: Attempts, slot: Int[Array, ""], before: Clock, taken: Float[Array, " lane"]) -> Attempts:
    return Attempts(
        store.states.at[slot].set(before.state),
        store.times.at[slot].set(before.time),
        store.steps.at[slot].set(before.step),
        store.taken.at[slot].set(taken),
    )


class Kept(NamedTuple):
    """What the backward pass starts from; all but the store are the same in every lane."""

    store: Attempts
    attempts: Int[Array, " lane"]
    stride: Int[Array, " lane"]
    switched: Int[Array, " lane"]


def follow_and_keep(system: System, problem: Problem) -> tuple[Clock, Kept]:
    """Follow every lane to its end, keeping every `stride`-th attempt."""
    slots = system.slots
    progress, clock = begin(system, problem)
    # One slot more than is kept, to write to where an attempt is not kept.
    carry = (progress, jnp.ones((), jnp.int32), clock, _empty_store(clock, slots + 1))

    def go_on(carry: tuple[Progress, Array, Clock, Attempts]) -> Array:
        return any_active(carry[2])

    def has_room(carry: tuple[Progress, Array, Clock, Attempts]) -> Array:
        return go_on(carry) & (carry[0].attempted < slots * carry[1])

    def advance(carry: tuple[Progress, Array, Clock, Attempts]) -> tuple[Progress, Array, Clock, Attempts]:
        progress, stride, clock, store = carry
        progress, clock = turn_to_stiff_rule(system, progress, clock)
        moved, taken = attempt(system, progress.stiff, clock, problem)
        count = progress.attempted
        slot = jnp.where(count % stride == 0, count // stride, slots)
        progress = progress._replace(attempted=count + 1)
        return progress, stride, within_room(system, progress, moved), _write(store, slot, clock, taken)

    def thin(carry: tuple[Progress, Array, Clock, Attempts]) -> tuple[Progress, Array, Clock, Attempts]:
        progress, stride, clock, store = carry
        every_second = jnp.minimum(2 * jnp.arange(slots + 1), slots)
        return progress, 2 * stride, clock, jax.tree.map(lambda x: x[every_second], store)

    def fill(carry: tuple[Progress, Array, Clock, Attempts]) -> tuple[Progress, Array, Clock, Attempts]:
        filled = jax.lax.while_loop(has_room, advance, carry)
        return jax.lax.cond(go_on(filled), thin, lambda carry: carry, filled)

    progress, stride, clock, store = jax.lax.while_loop(go_on, advance if system.rule.adaptive else fill, carry)
    lanes = problem.end.shape
    return clock, Kept(store, *(jnp.broadcast_to(x, lanes) for x in (progress.attempted, stride, progress.switched)))


def _transpose(
    system: System,
    attempts: Attempts,
    knots_bar: Array | None,
    first: Int[Array, ""],
    past: Int[Array, ""],
    switched: Int[Array, ""],
    state_bar: Array,
    parameters_bar: Any,
    problem: Problem,
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


def pull_cotangents_back(
    system: System,
    kept: Kept,
    knots_bar: Array | None,
    reached: Float[Array, " lane"],
    state_bar: Array,
    problem: Problem,
) -> tuple[Array, Any]:
    """Pull cotangents at time `reached` (and those of the kept states, if any) back to time zero.

    Where every attempt was kept, they are transposed as they are. Where only every `stride`-th was, the steps from a
    kept state to the time already reached backwards are taken again, the last `System.slots` of them are transposed,
    and so on until the kept state itself is reached; then comes the kept state before it.
    """
    store, count, stride, switched = kept.store, *(jnp.max(x) for x in (kept.attempts, kept.stride, kept.switched))
    parameters_bar = jax.tree.map(jnp.zeros_like, problem.parameters)
    if system.rule.adaptive:
        none = jnp.zeros_like(count)
        return _transpose(system, store, knots_bar, none, count, switched, state_bar, parameters_bar, problem)
    slots, whole = system.slots, stride == 1
    segments = jnp.where(whole, jnp.minimum(count, 1), (count + stride - 1) // stride)
    unlimited = jnp.full_like(problem.most_steps, NEVER)

    def again(carry: tuple[Array, Array, Array, Any]) -> tuple[Array, Array, Array, Any]:
        segment, reached, state_bar, parameters_bar = carry
        began = store.times[segment]
        part = problem._replace(state=store.states[segment], until=reached, most_steps=unlimited)
        clock = clock_at(system, part, began, store.steps[segment])

        def advance(carry: tuple[Array, Clock, Attempts]) -> tuple[Array, Clock, Attempts]:
            taken_again, clock, ring = carry
            moved, taken = attempt(system, jnp.asarray(False), clock, part)
            return taken_again + 1, moved, _write(ring, taken_again % slots, clock, taken)

        ring = jax.tree.map(lambda x: x[:slots], store)
        taken_again, _, ring = jax.lax.while_loop(
            lambda c: any_active(c[1]) & ~whole, advance, (jnp.zeros((), jnp.int32), clock, ring)
        )
        past = jnp.where(whole, count, taken_again)
        first = jnp.maximum(past - slots, 0)
        slots_bar = None if knots_bar is None else jnp.where(whole, knots_bar[:slots], 0.0)
        state_bar, parameters_bar = _transpose(
            system, ring, slots_bar, first, past, switched, state_bar, parameters_bar, part
        )
        # The slot of `first` holds the oldest attempt that was transposed; with none, the segment is already behind us.
        oldest = ring.times[first % slots]
        reached = jnp.where((past > 0) & ~whole, jnp.minimum(oldest, reached), began)
        done = jnp.all(reached <= began)
        if knots_bar is not None:
            state_bar = state_bar + jnp.where(done & ~whole, knots_bar[segment], 0.0)
        return segment - done.astype(segment.dtype), reached, state_bar, parameters_bar

    carry = (segments - 1, reached, state_bar, parameters_bar)
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, again, carry)[2:]
