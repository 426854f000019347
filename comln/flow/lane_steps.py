r"""Adaptive steps of many lanes at once, each an autonomous problem $\dot y = f(y; \theta)$ with a clock of its own.

**Steps.** As long as the estimated error allows, and no longer than the backward sweep needs
(`comln.flow.step_rules`). A lane where its limit of stability holds the explicit rule back, with many such steps to
come, waits until the other lanes have come to their end or wait as well; then the implicit rule goes on with it.

**Lanes.** The arrays of `Problem` and `Clock` have a leading lane axis, and the loops run on while any lane is active,
each lane with its own step size. A lane that has finished or rejected its step takes a step of length zero, whose
transpose is the identity.
"""

__all__ = [
    "ADAPTIVE_SLOTS",
    "FINISHED",
    "NEVER",
    "OUT_OF_STEPS",
    "SLOTS",
    "WORTH_SWITCHING",
    "Clock",
    "Problem",
    "Progress",
    "System",
    "any_active",
    "attempt",
    "begin",
    "clock_at",
    "follow_lanes",
    "turn_to_stiff_rule",
    "within_room",
]

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

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

NEVER = jnp.iinfo(jnp.int32).max
"""As a number of steps: more than are ever taken."""

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


class Problem(NamedTuple):
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


class Clock(NamedTuple):
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


def _per_lane(values: Array, like: Array) -> Array:
    """Return `values`, one a lane, with as many axes as `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def _step_length(system: System, stiff: Bool[Array, ""], clock: Clock, problem: Problem) -> tuple[Array, Array, Array]:
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


def attempt(
    system: System, stiff: Bool[Array, ""], clock: Clock, problem: Problem
) -> tuple[Clock, Float[Array, " lane"]]:
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
    moved = Clock(
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


def clock_at(system: System, problem: Problem, time: Float[Array, " lane"], step: Float[Array, " lane"]) -> Clock:
    """Return the clock of lanes that stand at the problem's state at `time`, before a step of length `step`."""
    first = jax.vmap(system.rate)(problem.state, problem.parameters, problem.constants)
    radius = jnp.zeros_like(time)
    if system.rule.adaptive:
        radius = jax.vmap(system.radius)(problem.state, problem.parameters, problem.constants)
    status = jnp.where(time < problem.until, ACTIVE, FINISHED).astype(jnp.int32)
    if system.stiff_rule is not None:
        status = jnp.where((status == ACTIVE) & problem.stiff, STIFF, status)
    none = jnp.zeros_like(status)
    return Clock(time, step, problem.state, first, radius, none, status, none)


def any_active(clock: Clock) -> Bool[Array, ""]:
    """Return whether a lane goes on, or waits for the stiff rule."""
    return jnp.any((clock.status == ACTIVE) | (clock.status == STIFF))


class Progress(NamedTuple):
    """How many steps were attempted in all, and from which on by the stiff rule."""

    attempted: Int[Array, ""]
    switched: Int[Array, ""]

    @property
    def stiff(self) -> Bool[Array, ""]:
        """Whether the stiff rule is in use."""
        return self.attempted >= self.switched


def turn_to_stiff_rule(system: System, progress: Progress, clock: Clock) -> tuple[Progress, Clock]:
    """Turn to the stiff rule if only lanes that wait for it are left, or it is time to leave it room."""
    if system.stiff_rule is None:
        return progress, clock
    waits = clock.status == STIFF
    turns = ~progress.stiff & (~jnp.any(clock.status == ACTIVE) | (progress.attempted >= system.before_stiff))
    status = jnp.where(turns & waits, ACTIVE, clock.status).astype(clock.status.dtype)
    return progress._replace(switched=jnp.where(turns, progress.attempted, progress.switched)), clock._replace(
        status=status
    )


def within_room(system: System, progress: Progress, clock: Clock) -> Clock:
    """Return the clock with no lane going on once there is no room for what it would do."""
    if not system.rule.adaptive:
        return clock
    going = (clock.status == ACTIVE) | (clock.status == STIFF)
    status = jnp.where(going & (progress.attempted >= system.slots), OUT_OF_STEPS, clock.status)
    return clock._replace(status=status.astype(clock.status.dtype))


def begin(system: System, problem: Problem) -> tuple[Progress, Clock]:
    """Return where a solve stands before its first step."""
    progress = Progress(jnp.zeros((), jnp.int32), jnp.asarray(NEVER, jnp.int32))
    return progress, clock_at(system, problem, jnp.zeros_like(problem.end), problem.first_step)


def follow_lanes(system: System, problem: Problem) -> Clock:
    """Follow every lane to its end, keeping nothing."""

    def advance(carry: tuple[Progress, Clock]) -> tuple[Progress, Clock]:
        progress, clock = turn_to_stiff_rule(system, *carry)
        moved, _ = attempt(system, progress.stiff, clock, problem)
        progress = progress._replace(attempted=progress.attempted + 1)
        return progress, within_room(system, progress, moved)

    return jax.lax.while_loop(lambda carry: any_active(carry[1]), advance, begin(system, problem))[1]
