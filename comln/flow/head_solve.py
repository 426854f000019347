"""How a head's flow is followed: which solver takes which part of the way."""

__all__ = ["Clocked", "clocked", "settling_time", "solve_head_flow", "system_of"]

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from comln.flow.adaptive import follow
from comln.flow.equilibrium import come_to_rest
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.integrator import Dopri5, Euler, Integrator, Rodas4, Tsit5
from comln.flow.lane_steps import FINISHED, WORTH_SWITCHING, System
from comln.flow.linear_flow import follow_linear_flow
from comln.flow.step_rules import DORMAND_PRINCE, EULER, RODAS, TSITOURAS
from comln.losses import SquaredError
from comln.typing import Array, Float, Int, Scalar


def system_of(flow: HeadFlow, integrator: Integrator, factor: Float[Array, "support _"]) -> System:
    """Return the flow as a system that is followed as `integrator` says; where adaptive, by Rodas where it is stiff.

    - `factor`: that of `HeadParameters`; only its shape matters.
    """
    match integrator.method:
        case Tsit5():
            rule, stiff_rule = TSITOURAS, RODAS
        case Dopri5():
            rule, stiff_rule = DORMAND_PRINCE, RODAS
        case Rodas4():
            rule, stiff_rule = RODAS, None
        case Euler():
            rule, stiff_rule = EULER, None
    support, rows = factor.shape
    worth = WORTH_SWITCHING if stiff_rule is None else worth_switching(support, rows, flow.in_span)
    return System(
        rule,
        stiff_rule,
        flow.rate,
        flow.radius,
        flow.resolvent,
        integrator.rtol,
        integrator.atol,
        worth,
    )


def worth_switching(support: int, rows: int, in_span: bool) -> int:
    r"""Return how many explicit steps cost as much as the implicit ones in their place, within the room for them.

    For one way, an implicit step factors a matrix of $M \times M$ and inverts and multiplies the factor, about
    $3.3 M^3$ operations; an explicit one multiplies seven times (six stages, and the bound on its next step) by
    $\Phi$ and $\Phi^\top$, $28 MR$ for $R$ rows, or by $G$, $14 M^2$. A stiff solve takes about 40 implicit steps, but
    each costs less than its operations say, so that it is even at about 25 times the ratio. The states that are kept
    take at most twice the memory of the factors, $M^2$ for one way. `benchmarks/switching.py` measures it.

    >>> worth_switching(5, 5, True), worth_switching(100, 100, True), worth_switching(100, 32, False)
    (100, 200, 625)
    """
    cost = 3.3 * support**2 / (14 * support if in_span else 28 * rows)
    return max(WORTH_SWITCHING, round(min(25 * cost, 2 * support**2 / rows)))


class Clocked(NamedTuple):
    r"""A flow in the time of its integrator.

    - `unit`: how much of that time one unit of $T$ is.
    - `first_step`: the length of the first step.
    """

    parameters: HeadParameters
    constants: tuple[Array, Array]
    unit: Scalar
    first_step: Scalar


def clocked(
    integrator: Integrator, parameters: HeadParameters, constants: tuple[Array, Array], unit: Scalar
) -> Clocked:
    r"""Return the flow in the time that its integrator counts: $c^2 t$, or Euler's steps.

    A count of steps is exact where their sum is not: 100,000 steps of 0.001 do not add up to 100 in single precision.
    """
    if not isinstance(integrator.method, Euler):
        return Clocked(parameters, constants, unit, jax.lax.stop_gradient(1 / (1 + parameters.proximal)))
    step = integrator.method.step * unit
    labels, share = constants
    return Clocked(
        parameters._replace(proximal=step * parameters.proximal),
        (labels, step * share),
        unit / step,
        jnp.ones_like(unit),
    )


def settling_time(parameters: HeadParameters) -> Scalar:
    r"""Return when $e^{-\lambda t}$ falls below what the precision resolves; infinity without a proximal term.

    Every mode of the flow, and of its derivative, decays at least as fast as $e^{-\lambda t}$ towards its limit.
    """
    proximal = jax.lax.stop_gradient(parameters.proximal)
    e_folds = 4 - jnp.log(jnp.finfo(proximal.dtype).eps)
    return jnp.where(proximal > 0, e_folds / jnp.where(proximal > 0, proximal, 1.0), jnp.inf)


def solve_head_flow(
    flow: HeadFlow,
    integrator: Integrator,
    parameters: HeadParameters,
    constants: Any,
    unit: Scalar,
    horizon: Scalar,
    may_rest: bool,
) -> tuple[Array, Int[Array, ""], Int[Array, ""]]:
    r"""Return $u(c^2 T)$ of the flow from zero, the status of the solve, and its steps.

    - The squared error's flow is solved in closed form.
    - A flow that is at rest long before $T$, or whose $T$ is infinite, is solved for where it rests.
    - An explicit pair takes the rest; where its stability holds it back, a Rosenbrock method goes on.
    - Euler's method takes its fixed steps, whatever the loss.

    Differentiable in `parameters` and `horizon`; the gradient in `horizon` is zero where the flow is at rest.

    - `unit`: $c^2$. `horizon`: $T \ge 0$, infinite only if it `may_rest`.
    - `may_rest`: whether the flow may be at rest before $T$; if it cannot, that part need not be compiled.
    """
    clock = clocked(integrator, parameters, constants, unit)
    end = clock.unit * horizon
    labels, _ = constants
    support, way = labels.shape
    rows = support if flow.in_span else parameters.factor.shape[1]
    start = jnp.zeros((rows, way), parameters.factor.dtype)
    adaptive = not isinstance(integrator.method, Euler)
    if isinstance(flow.loss, SquaredError) and adaptive:
        state = follow_linear_flow(flow.in_span, parameters, constants, end)
        return state, jnp.asarray(FINISHED), jnp.zeros((), jnp.int32)

    may_rest = may_rest and adaptive
    settled = jnp.isinf(end) | (end >= settling_time(parameters)) if may_rest else jnp.zeros((), bool)
    followed = follow(
        system_of(flow, integrator, parameters.factor),
        start,
        jnp.where(settled, 0.0, end),
        clock.first_step,
        jnp.asarray(integrator.max_steps, jnp.int32),
        clock.parameters,
        clock.constants,
    )
    if not may_rest:
        return followed.state, followed.status, followed.attempts
    rest = come_to_rest(flow, settled, followed.state, parameters, constants)
    return rest.state, jnp.where(settled, rest.status, followed.status), followed.attempts + rest.steps
