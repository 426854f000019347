"""The one place that knows the ODE library (Diffrax). It solves, and is never differentiated."""

__all__ = ["integrate"]

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from comln.flow.integrator import Dopri5, Euler, FlowResult, Integrator, Tsit5
from comln.typing import Array, Int, Scalar


def largest_block_rms(tree: Any) -> Scalar:
    """Return the largest root-mean-square over the arrays of `tree`, so that no large array hides a small one.

    >>> float(largest_block_rms((jnp.zeros(1000), jnp.array([3.0, 3.0]))))
    3.0
    """
    blocks = [jnp.sqrt(jnp.mean(jnp.square(leaf))) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(blocks))


def integrate(
    rate: Callable[[Any], Any], state: Any, end: Scalar, unit: Scalar, integrator: Integrator
) -> tuple[Any, FlowResult, Int[Array, ""]]:
    """Return the state at time `end` of the autonomous system `rate`, how the solve ended, and its attempted steps.

    - `state`: the state at time zero, a pytree of arrays.
    - `end`: at least zero, finite.
    - `unit`: how many units of `end` one unit of the integrator's own step length is.
    """
    controller: diffrax.AbstractStepSizeController = diffrax.PIDController(
        rtol=integrator.rtol, atol=integrator.atol, norm=largest_block_rms
    )
    first_step = None
    match integrator.method:
        case Tsit5():
            solver = diffrax.Tsit5()
        case Dopri5():
            solver = diffrax.Dopri5()
        case Euler(step):
            solver, controller, first_step = diffrax.Euler(), diffrax.ConstantStepSize(), step * unit
        case method:
            raise ValueError(
                f"{type(method).__name__} steps are for `meta_gradient=SpanAdjoint()` alone. Use it, or an integrator "
                "with method Tsit5(), Dopri5() or Euler(step)."
            )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: rate(y)),
        solver,
        t0=jnp.zeros_like(end),
        t1=end,
        dt0=first_step,
        y0=state,
        stepsize_controller=controller,
        max_steps=integrator.max_steps,
        saveat=diffrax.SaveAt(t1=True),
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    result = FlowResult.where(
        solution.result == diffrax.RESULTS.successful,
        FlowResult.successful,
        FlowResult.where(
            solution.result == diffrax.RESULTS.max_steps_reached,
            FlowResult.max_steps_reached,
            FlowResult.step_underflow,
        ),
    )
    return jax.tree.map(lambda y: y[0], solution.ys), result, solution.stats["num_steps"]
