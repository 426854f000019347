"""How a flow is integrated, and how the solve ended."""

__all__ = ["Dopri5", "Euler", "FlowInfo", "FlowResult", "Integrator", "Rodas4", "Tsit5"]

from dataclasses import dataclass

import equinox as eqx

from comln.typing import Array, Int


@dataclass(frozen=True)
class Tsit5:
    """Tsitouras' explicit pair of order 5(4), with adaptive steps; where the flow is stiff, `Rodas4` goes on."""


@dataclass(frozen=True)
class Dopri5:
    """Dormand and Prince's explicit pair of order 5(4), the solver of the paper; as `Tsit5` otherwise."""


@dataclass(frozen=True)
class Rodas4:
    """Hairer and Wanner's linearly implicit method of order 4(3), L-stable, with adaptive steps: for stiff flows."""


@dataclass(frozen=True)
class Euler:
    r"""Explicit Euler steps of one fixed length, $W \leftarrow W - \alpha \nabla L(W)$: gradient descent, as in ANIL.

    - `step`: $\alpha > 0$, in units of $t$: $n$ steps reach $T = \alpha n$. The last step is shortened to end at $T$.
    """

    step: float

    def __post_init__(self) -> None:
        if not self.step > 0:
            raise ValueError(f"The Euler step must be positive, got {self.step}.")


@dataclass(frozen=True)
class Integrator:
    r"""How far a solve may err, and how long it may take.

    - `rtol`, `atol`: bounds on the relative and absolute error of a step, in units of logits: the coordinates of the
      flow are scaled so that a change by one changes a support example's own logits by about one, whatever the norm of
      the embeddings.
    - `max_steps`: limit on attempted steps, accepted or not; it costs nothing.
    - `method`: `Tsit5()`, `Dopri5()`, `Rodas4()` or `Euler(step)`.

    >>> Integrator.euler(step=0.01).method
    Euler(step=0.01)
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 4096
    method: Tsit5 | Dopri5 | Rodas4 | Euler = Tsit5()

    def __post_init__(self) -> None:
        if not (self.rtol >= 0 and self.atol > 0):
            raise ValueError(f"`rtol` must be at least zero and `atol` positive, got {self.rtol} and {self.atol}.")
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {self.max_steps}.")

    @classmethod
    def euler(cls, step: float, max_steps: int = 1_000_000) -> "Integrator":
        """Return the integrator that takes Euler steps of length `step`."""
        return cls(max_steps=max_steps, method=Euler(step))


class FlowResult(eqx.Enumeration):
    """How a solve ended. Every failure's text ends in its remedy."""

    successful = "The flow was followed to its horizon."
    max_steps_reached = (
        "The flow did not reach its horizon within `max_steps` steps, or those that there is room for (256 at a "
        "tolerance of 1e-5). Raise `Integrator(max_steps=...)`, loosen `rtol` and `atol`, shorten the horizon, or use "
        "float64."
    )
    step_underflow = (
        "The step size fell below what this floating-point precision resolves, or Euler steps were so long that the "
        "weights ran away. Loosen `rtol` and `atol`, enable float64 with `jax.config.update('jax_enable_x64', True)`, "
        "or shorten `Euler(step)`."
    )
    non_finite_input = (
        "The initial weights, embeddings, labels, mask or proximal weight hold a NaN, an infinity, or numbers whose "
        "squares overflow. Check the network that made them and its learning rate."
    )
    invalid_horizon = "The horizon is negative or not a number. Pass T >= 0, for example as exp(log_horizon)."
    infinite_horizon = (
        "The horizon is infinite, which this meta-gradient or integrator cannot follow, or which was not known when "
        "the flow was compiled. Pass a finite horizon, or use `SpanAdjoint()` with adaptive steps and pass "
        "`horizon=jnp.inf` itself or a `proximal` weight."
    )
    no_limit = (
        "The horizon is infinite and the flow has no limit, or one too far away for this precision: with `proximal` = "
        "0 the weights of separable examples grow for ever. Pass a finite horizon, `proximal` > 0, or smoothed labels."
    )
    needs_proximal = (
        "ImplicitDifferentiation is for flows that come to rest. Pass `proximal` > 0, or use `SpanAdjoint()`."
    )
    invalid_labels = (
        "The labels are not what this loss takes: at least zero for the cross-entropy, from zero to one for the "
        "sigmoid cross-entropy. Pass one-hot or smoothed labels."
    )
    negative_proximal = "The proximal weight is negative, and the flow would run away. Pass `proximal` >= 0."
    empty_support = "No support example has a positive weight in `mask`. Give at least one labelled example."


class FlowInfo(eqx.Module):
    """What is nice to know of a solve.

    - `result`: how it ended.
    - `steps`: attempted steps, accepted or not.
    """

    result: FlowResult
    steps: Int[Array, ""]
