"""The one place that knows the ODE library (Diffrax)."""

__all__ = ["integrate", "integrate_and_backpropagate"]

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

    Not to be differentiated in reverse mode.

    - `state`: the state at time zero, a pytree of arrays.
    - `end`: at least zero, finite.
    - `unit`: how many units of `end` one unit of the integrator's own step length is.
    """
    return _integrate(lambda y, _: rate(y), state, None, end, unit, integrator, diffrax.ForwardMode())


def integrate_and_backpropagate(
    rate: Callable[[Any, Any], Any],
    state: Any,
    parameters: Any,
    end: Scalar,
    unit: Scalar,
    integrator: Integrator,
    checkpoints: int,
) -> tuple[Any, FlowResult, Int[Array, ""]]:
    """Do as `integrate` does for `rate(state, parameters)`, differentiable in reverse mode through its steps.

    - `checkpoints`: how many states are kept; the steps between them are taken again.
    """
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoints)
    return _integrate(rate, state, parameters, end, unit, integrator, adjoint)


def _integrate(
    rate: Callable[[Any, Any], Any],
    state: Any,
    parameters: Any,
    end: Scalar,
    unit: Scalar,
    integrator: Integrator,
    adjoint: diffrax.AbstractAdjoint,
) -> tuple[Any, FlowResult, Int[Array, ""]]:
    match integrator.method:
        case Tsit5():
            solver = diffrax.Tsit5()
        case Dopri5():
            solver = diffrax.Dopri5()
        case Euler(step):
            return _judge(*_integrate_by_euler(rate, state, parameters, end, step * unit, integrator, adjoint))
        case method:
            raise ValueError(
                f"{type(method).__name__} steps are for `meta_gradient=SpanAdjoint()` alone. Use it, or an integrator "
                "with method Tsit5(), Dopri5() or Euler(step)."
            )
    controller = diffrax.PIDController(rtol=integrator.rtol, atol=integrator.atol, norm=largest_block_rms)
    return _judge(*_solve(rate, state, parameters, end, None, solver, controller, integrator.max_steps, adjoint))


def _judge(state: Any, result: FlowResult, steps: Int[Array, ""]) -> tuple[Any, FlowResult, Int[Array, ""]]:
    """Return the arguments; a state that is not finite is a failure, also after steps of fixed length."""
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]))
    diverged = (result == FlowResult.successful) & ~finite
    return state, FlowResult.where(diverged, FlowResult.step_underflow, result), steps


def _integrate_by_euler(
    rate: Callable[[Any, Any], Any],
    state: Any,
    parameters: Any,
    end: Scalar,
    step: Scalar,
    integrator: Integrator,
    adjoint: diffrax.AbstractAdjoint,
) -> tuple[Any, FlowResult, Int[Array, ""]]:
    """Take Euler steps of length `step`, and a last one of what remains (the library would make all a bit shorter)."""
    whole = jnp.maximum(jnp.ceil(end / step - 1e-3) - 1, 0.0)
    state, result, steps = _solve(
        rate,
        state,
        parameters,
        whole * step,
        step,
        diffrax.Euler(),
        diffrax.ConstantStepSize(),
        integrator.max_steps,
        adjoint,
    )
    last = end - whole * step
    state = jax.tree.map(lambda y, dy: y + last * dy, state, rate(state, parameters))
    steps = steps + (end > 0).astype(steps.dtype)
    return state, FlowResult.where(steps > integrator.max_steps, FlowResult.max_steps_reached, result), steps


def _solve(
    rate: Callable[[Any, Any], Any],
    state: Any,
    parameters: Any,
    end: Scalar,
    first_step: Scalar | None,
    solver: diffrax.AbstractSolver,
    controller: diffrax.AbstractStepSizeController,
    max_steps: int,
    adjoint: diffrax.AbstractAdjoint,
) -> tuple[Any, FlowResult, Int[Array, ""]]:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, parameters: rate(y, parameters)),
        solver,
        t0=jnp.zeros_like(end),
        t1=end,
        dt0=first_step,
        y0=state,
        args=parameters,
        stepsize_controller=controller,
        max_steps=max_steps,
        saveat=diffrax.SaveAt(t1=True),
        adjoint=adjoint,
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
