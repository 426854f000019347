r"""An adaptive solve with its own reverse mode, for many small autonomous problems at once.

Forward, a step rule follows $\dot y = f(y; \theta)$ from $y(0)$ to $y(T)$ (`comln.flow.lane_steps`); backward, the
steps that were taken are transposed (`comln.flow.kept_steps`), and the horizon's cotangent is

$$ \bar T = \langle \bar y(T), f(y(T)) \rangle. $$

`jax.vmap` adds lanes (`comln.flow.add_lanes`), so that a batch of tasks is one loop; it would otherwise copy the stored
steps at every step.
"""

__all__ = ["Followed", "Knots", "follow", "follow_keeping_knots"]

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from comln.flow.add_lanes import add_lanes_by_vmap
from comln.flow.highest_precision import at_highest_precision
from comln.flow.kept_steps import Attempts, Kept, follow_and_keep, pull_cotangents_back
from comln.flow.lane_steps import FINISHED, Clock, Problem, System, follow_lanes
from comln.typing import Array, Bool, Float, Int, Scalar


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


def _swap_slots_and_lanes(store: Attempts) -> Attempts:
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), store)


def _solver(system: System) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return a solve, one that keeps its steps, and the way back, lanes first in all that they take and return."""

    def solve_and_keep(problem: Problem) -> tuple[Clock, Kept]:
        clock, kept = follow_and_keep(system, problem)
        return clock, kept._replace(store=_swap_slots_and_lanes(kept.store))

    def pull_back(
        kept: Kept, clock: Clock, state_bar: Array, knots_bar: Array | None, problem: Problem
    ) -> tuple[Array, Array, Any]:
        kept = kept._replace(store=_swap_slots_and_lanes(kept.store))
        knots_bar = None if knots_bar is None else jnp.moveaxis(knots_bar, 0, 1)
        end_bar = jax.vmap(lambda a, b: jnp.sum(a * b))(state_bar, clock.rate)
        state_bar, parameters_bar = pull_cotangents_back(system, kept, knots_bar, clock.time, state_bar, problem)
        return state_bar, jnp.where(clock.status == FINISHED, end_bar, 0.0), parameters_bar

    return (
        add_lanes_by_vmap(lambda problem: follow_lanes(system, problem)),
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
) -> Problem:
    stiff = jnp.asarray(False) if stiff is None else stiff
    problem = Problem(state, end, end, first_step, most_steps.astype(jnp.int32), stiff, parameters, constants)
    return jax.tree.map(lambda x: x[None], problem)


def _followed(clock: Clock) -> Followed:
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
    def run(problem: Problem) -> Followed:
        return _followed(solve(problem))

    @at_highest_precision
    def run_forward(problem: Problem) -> Any:
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
    def run(problem: Problem) -> tuple[Followed, Knots]:
        return run_forward(problem)[0]

    @at_highest_precision
    def run_forward(problem: Problem) -> Any:
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


def _cotangent(problem: Problem, state_bar: Array, end_bar: Array, parameters_bar: Any) -> Problem:
    """Return the cotangent of `problem`, which depends on `end` by `end` alone."""

    def none(x: Array) -> Any:
        return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0)

    return Problem(
        state=state_bar,
        end=end_bar,
        until=jnp.zeros_like(end_bar),
        first_step=jnp.zeros_like(end_bar),
        most_steps=none(problem.most_steps),
        stiff=none(problem.stiff),
        parameters=parameters_bar,
        constants=jax.tree.map(none, problem.constants),
    )
