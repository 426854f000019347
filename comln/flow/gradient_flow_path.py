"""The whole path of a gradient flow from one solve: weights and logits at any time before the horizon."""

__all__ = ["FlowPath", "gradient_flow_path"]

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

from comln.flow.adaptive import Knots, follow, follow_keeping_knots
from comln.flow.head_flow import HeadFlow, HeadParameters
from comln.flow.head_solve import clocked, settling_time, system_of
from comln.flow.highest_precision import at_highest_precision
from comln.flow.integrator import Euler, FlowInfo, FlowResult, Integrator
from comln.flow.lane_steps import FINISHED
from comln.flow.linear_flow import follow_linear_flow
from comln.flow.meta_gradients.base import FlowProblem, squared_norm
from comln.flow.meta_gradients.span_adjoint import result_of
from comln.flow.posing import as_arrays, may_rest, pose, raise_if_failed
from comln.flow.span_coordinates import logit_unit
from comln.losses import AbstractLoss, CrossEntropy, SquaredError
from comln.typing import Array, Bool, Float, Scalar, ScalarLike


class FlowPath(eqx.Module):
    r"""The path $W(t)$, $0 \le t \le T$, of one gradient flow; a pytree, so that `jax.vmap` makes and reads many.

    Between the states that the solve kept it is followed again from the one before $t$, usually by a single step, so
    that it is as exact anywhere as at the ends. Everything is differentiable in reverse mode: in what the path was made
    of, in $t$, and in the embeddings whose logits are asked for.

    - `info`: how the solve went.
    - `horizon`: $T$.
    """

    info: FlowInfo
    horizon: Scalar
    _problem: FlowProblem
    _parameters: HeadParameters
    _unit: Scalar
    _knots: Knots | None
    _end: Scalar
    _integrator: Integrator = eqx.field(static=True)
    _in_span: bool = eqx.field(static=True)

    def weights_at(self, times: ScalarLike | Float[Array, " time"]) -> Float[Array, "*time way feature"]:
        r"""Return $W(t)$, of shape `(way, feature)`, or `(time, way, feature)` for an array of times.

        **Raises:** `ValueError` if a time lies outside of the path. Under `jax.jit` its weights are NaN instead.

        **Example:** one point at 1, squared error: the weight is $1 - e^{-t}$.

        >>> from comln import SquaredError, gradient_flow_path
        >>> path = gradient_flow_path(jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1)), 9.0, loss=SquaredError())
        >>> path.weights_at(jnp.log(jnp.array([1.0, 2.0, 4.0]))).round(4).tolist()
        [[[0.0]], [[0.5]], [[0.75]]]
        """
        times = self._checked(times)
        return _weights_at(self, times) if times.ndim == 0 else jax.vmap(lambda t: _weights_at(self, t))(times)

    def logits_at(
        self, embeddings: Float[Array, "example feature"], times: ScalarLike | Float[Array, " time"]
    ) -> Float[Array, "*time example way"]:
        r"""Return the logits of `embeddings` at time $t$, of shape `(example, way)`, or `(time, example, way)`.

        The weights are not formed: for many times this is cheaper than `weights_at`. Raises as it does.
        """
        times = self._checked(times)
        start = embeddings @ self._problem.initial_weights.T
        if self._in_span:
            moves = embeddings @ self._problem.embeddings.T / self._unit
        else:
            moves = embeddings / jnp.sqrt(self._unit)
        if times.ndim == 0:
            return _logits_at(self, start, moves, times)
        return jax.vmap(lambda t: _logits_at(self, start, moves, t))(times)

    def _checked(self, times: ScalarLike | Array) -> Array:
        times = jnp.asarray(times, self.horizon.dtype)
        if times.ndim > 1:
            raise ValueError(f"`times` must be a scalar or have one axis, got shape {times.shape}.")
        if not isinstance(times, Tracer) and not isinstance(self.horizon, Tracer) and self.horizon.ndim == 0:
            if not bool(jnp.all((times >= 0) & (times <= self.horizon))):
                raise ValueError(
                    f"`times` must lie between 0 and the path's horizon {float(self.horizon):g}. Ask for a longer path."
                )
        return times


def gradient_flow_path(
    initial_weights: Float[Array, "way feature"],
    embeddings: Float[Array, "support feature"],
    labels: Float[Array, "support way"],
    horizon: ScalarLike,
    *,
    mask: Float[Array, " support"] | None = None,
    loss: AbstractLoss = CrossEntropy(),
    proximal: ScalarLike = 0.0,
    integrator: Integrator = Integrator(),
) -> FlowPath:
    r"""Follow the gradient flow of the support loss and keep the path $W(t)$, $0 \le t \le T$.

    The arguments, and what is raised, are those of `comln.gradient_flow`; the gradient is that of `SpanAdjoint`. An
    infinite `horizon` needs `proximal` > 0 or a squared error.

    **Example:** two points at $\pm 1$. By symmetry $W = (w, -w)$ with $w + (e^{2w} - 1)/2 = t$.

    >>> points, labels, w = jnp.array([[1.0], [-1.0]]), jnp.eye(2), jnp.array([0.0, 0.5, 1.0])
    >>> path = gradient_flow_path(jnp.zeros((2, 1)), points, labels, 10.0)
    >>> path.weights_at(w + (jnp.exp(2 * w) - 1) / 2).round(3).tolist()
    [[[0.0], [0.0]], [[0.5], [-0.5]], [[1.0], [-1.0]]]
    """
    path = _gradient_flow_path(
        as_arrays(initial_weights, embeddings, labels, horizon, mask, proximal),
        loss,
        integrator,
        may_rest(horizon, proximal),
    )
    raise_if_failed(path.info)
    return path


@eqx.filter_jit
@at_highest_precision
def _gradient_flow_path(
    arrays: tuple[Array, ...], loss: AbstractLoss, integrator: Integrator, may_rest: bool
) -> FlowPath:
    reaches_infinity = may_rest and not isinstance(integrator.method, Euler)
    problem, posed = pose(arrays, loss, may_rest, reaches_infinity)
    support, feature = problem.embeddings.shape
    in_span = support < feature
    if in_span:
        gram = problem.embeddings @ problem.embeddings.T
        unit = logit_unit(gram, problem.share)
        factor = gram / unit
    else:
        unit = squared_norm(problem)
        factor = problem.embeddings / jnp.sqrt(unit)
    initial_logits = problem.embeddings @ problem.initial_weights.T
    parameters = HeadParameters(factor, initial_logits, problem.proximal / unit)
    constants = (problem.labels, problem.share)
    clock = clocked(integrator, parameters, constants, unit)
    end = clock.unit * problem.horizon
    if isinstance(loss, SquaredError) and not isinstance(integrator.method, Euler):
        return FlowPath(
            FlowInfo(posed, jnp.zeros((), jnp.int32)),
            problem.horizon,
            problem,
            parameters,
            unit,
            None,
            end,
            integrator,
            in_span,
        )
    # From `settled` on the flow stands still, as far as the precision goes.
    settled = settling_time(clock.parameters)
    end = jnp.where(end > settled, settled, end)
    limitless = jnp.isinf(end)
    followed, knots = follow_keeping_knots(
        system_of(HeadFlow(loss, in_span), integrator, parameters.factor),
        jnp.zeros((support if in_span else feature, problem.labels.shape[1]), end.dtype),
        jnp.where(limitless, 0.0, end),
        clock.first_step,
        jnp.asarray(integrator.max_steps, jnp.int32),
        clock.parameters,
        clock.constants,
    )
    result = FlowResult.where(limitless, FlowResult.no_limit, result_of(followed.status))
    result = FlowResult.where(posed == FlowResult.successful, result, posed)
    info = FlowInfo(result, followed.attempts)
    return FlowPath(info, problem.horizon, problem, parameters, unit, knots, end, integrator, in_span)


@eqx.filter_jit
@at_highest_precision
def _state_at(path: FlowPath, time: Scalar) -> tuple[Array, Bool[Array, ""]]:
    r"""Return $u(t)$ and whether it means anything: the path was followed, and the time lies on it.

    The state is finite either way: NaN is put on what is made of it, where a cotangent of zero stays zero.
    """
    parameters, problem = path._parameters, path._problem
    constants = (problem.labels, problem.share)
    flow = HeadFlow(problem.loss, path._in_span)
    inside = (time >= 0) & (time <= path.horizon) & (path.info.result == FlowResult.successful)
    clock = clocked(path._integrator, parameters, constants, path._unit)
    now = clock.unit * jnp.where(inside, time, 0.0)
    if path._knots is None:
        return follow_linear_flow(path._in_span, parameters, constants, now), inside
    now = jnp.where(now > path._end, path._end, now)
    knots = path._knots
    nearest = jnp.argmax(jnp.where(knots.times <= now, knots.times, -jnp.inf))
    followed = follow(
        system_of(flow, path._integrator, parameters.factor),
        knots.states[nearest],
        now - jax.lax.stop_gradient(knots.times[nearest]),
        jax.lax.stop_gradient(knots.steps[nearest]),
        jnp.asarray(path._integrator.max_steps, jnp.int32),
        clock.parameters,
        clock.constants,
        knots.stiff[nearest],
    )
    reached = inside & (followed.status == FINISHED)
    return jnp.where(jnp.isfinite(followed.state), followed.state, 0.0), reached


@eqx.filter_jit
@at_highest_precision
def _weights_at(path: FlowPath, time: Scalar) -> Float[Array, "way feature"]:
    state, reached = _state_at(path, time)
    moved = state.T @ path._problem.embeddings / path._unit if path._in_span else state.T / jnp.sqrt(path._unit)
    return jnp.where(reached, path._problem.initial_weights + moved, jnp.nan)


@eqx.filter_jit
@at_highest_precision
def _logits_at(path: FlowPath, start: Array, moves: Array, time: Scalar) -> Float[Array, "example way"]:
    state, reached = _state_at(path, time)
    return jnp.where(reached, start + moves @ state, jnp.nan)
