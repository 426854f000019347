r"""How one step is taken: explicit Runge-Kutta pairs, and a linearly implicit (Rosenbrock) one for stiff flows.

A step rule also says how long its steps may be for the *backward* sweep's sake. The flow's modes decay at rates
$0 \le \mu \le \rho$; a rule takes a mode by $R(-h\mu)$ where the flow takes it by $e^{-h\mu}$. The error estimate
sees only the modes that the solution happens to excite, but a cotangent at $T$ excites all of them, and has decayed by
$e^{-\mu\tau}$ when the sweep reaches a step that ends $\tau$ before $T$. So a step of length $h$ keeps every mode right
to $\epsilon$ if

$$ \max_{0 \le \mu \le \rho} \lvert R(-h\mu) - e^{-h\mu} \rvert \, e^{-\mu\tau} \le \epsilon, $$

and for a rule of order $p$ that holds if either $h\rho$ or $h/\tau$ is below a constant times $\epsilon^{1/(p+1)}$.
"""

__all__ = [
    "DORMAND_PRINCE",
    "EULER",
    "RODAS",
    "TSITOURAS",
    "ExplicitRule",
    "Rate",
    "Resolvent",
    "RosenbrockRule",
    "StepRule",
]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from comln.typing import Array, Scalar

Rate = Callable[[Array, Any, Any], Array]
r"""$f$, called as `rate(state, parameters, constants)`."""

Resolvent = Callable[[Array, Scalar, Any, Any], Callable[[Array], Array]]
r"""`resolvent(state, shift, parameters, constants)` returns $b \mapsto (\text{shift} \cdot I - f'(y))^{-1} b$."""


@dataclass(frozen=True)
class ExplicitRule:
    r"""An explicit Runge-Kutta method with an embedded error estimate; its last stage is the next step's first.

    Stages $k_i = f(y + h \sum_{j<i} a_{ij} k_j)$, new state $y + h \sum_i b_i k_i$, error estimate
    $h \sum_i e_i k_i$. The row of `stages` for the last stage equals $b$, so it is stored once, as its last entry.

    - `stages`: the rows of $a$ from the second stage on; the last row is $b$.
    - `error`: $e$, one more entry than the last row of `stages`; empty where there is no estimate and steps are fixed.
    - `stability`: length of the interval of the negative real axis on which the rule is stable.
    - `order`: $p$.
    - `near`, `far`: $\lvert R(-x) - e^{-x} \rvert \le \texttt{near} \cdot x^{p+1}$ for $x \le 1$, and
      $\max_x \lvert R(-x) - e^{-x} \rvert e^{-x/\theta} \le \texttt{far} \cdot \theta^{p+1}$ for $\theta \le 0.4$.
    """

    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    stability: float
    order: int
    near: float
    far: float

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate to choose steps by."""
        return bool(self.error)

    def take(
        self,
        rate: Rate,
        resolvent: Resolvent,
        state: Array,
        first: Array,
        step: Scalar,
        parameters: Any,
        constants: Any,
    ) -> tuple[Array, Array, Array]:
        """Return the state a step later, the rate there, and the estimated error (zeros if there is no estimate)."""
        rates = [first]
        for row in self.stages[:-1]:
            increment = sum(a * k for a, k in zip(row, rates, strict=True) if a != 0.0)
            rates.append(rate(state + step * increment, parameters, constants))
        new = state + step * sum(b * k for b, k in zip(self.stages[-1], rates, strict=True) if b != 0.0)
        rates.append(rate(new, parameters, constants))
        if not self.adaptive:
            return new, rates[-1], jnp.zeros_like(new)
        return new, rates[-1], step * sum(e * k for e, k in zip(self.error, rates, strict=True) if e != 0.0)


@dataclass(frozen=True)
class RosenbrockRule:
    r"""A linearly implicit method: every stage solves one linear system with the same matrix.

    $$ \Bigl(\frac{1}{h\gamma} I - f'(y)\Bigr) u_i
       = f\Bigl(y + \sum_{j<i} a_{ij} u_j\Bigr) + \frac1h \sum_{j<i} c_{ij} u_j $$

    The new state is $y$ plus the last row of $a$ times $u$, plus the last $u$, which is the error estimate.

    - `stages`: the rows of $a$ from the second stage on.
    - `couplings`: the rows of $c$ from the second stage on.
    - `diagonal`: $\gamma$.
    - `order`, `near`, `far`: as in `ExplicitRule`. There is no limit of stability.
    """

    stages: tuple[tuple[float, ...], ...]
    couplings: tuple[tuple[float, ...], ...]
    diagonal: float
    order: int
    near: float
    far: float
    stability: float = float("inf")

    @property
    def adaptive(self) -> bool:
        """Whether there is an error estimate to choose steps by."""
        return True

    def take(
        self,
        rate: Rate,
        resolvent: Resolvent,
        state: Array,
        first: Array,
        step: Scalar,
        parameters: Any,
        constants: Any,
    ) -> tuple[Array, Array, Array]:
        """Return the state a step later, the rate there, and the estimated error."""
        moves = step > 0
        length = jnp.where(moves, step, jnp.ones_like(step))
        solve = resolvent(state, 1 / (self.diagonal * length), parameters, constants)

        def take_stage(solutions: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            stage, weights, coupling = row
            reached = state + jnp.tensordot(weights, solutions, axes=1)
            pull = jnp.tensordot(coupling, solutions, axes=1) / length
            solution = solve(rate(reached, parameters, constants) + pull)
            return solutions.at[stage].set(solution), reached

        # A loop rather than a list of stages: a stage is a large program, and would be compiled six times.
        count = len(self.stages) + 1
        rows = (jnp.arange(count), self._square(self.stages, state.dtype), self._square(self.couplings, state.dtype))
        solutions, reached = jax.lax.scan(take_stage, jnp.zeros((count, *state.shape), state.dtype), rows)
        # A step of length zero leaves the state, and its cotangent, as they are.
        new = jnp.where(moves, reached[-1] + solutions[-1], state)
        return new, rate(new, parameters, constants), jnp.where(moves, solutions[-1], jnp.zeros_like(state))

    @staticmethod
    def _square(rows: tuple[tuple[float, ...], ...], dtype: Any) -> Array:
        """Return the rows of a strictly lower triangular matrix as a square matrix."""
        size = len(rows) + 1
        return jnp.array([(0.0,) * size, *(row + (0.0,) * (size - len(row)) for row in rows)], dtype)


StepRule = ExplicitRule | RosenbrockRule
"""How one step is taken."""

DORMAND_PRINCE = ExplicitRule(
    stages=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    stability=3.306,
    order=5,
    near=5e-4,
    far=0.08,
)
"""Dormand and Prince (1980), A family of embedded Runge-Kutta formulae, RK5(4)7M. The pair that the paper used."""

TSITOURAS = ExplicitRule(
    stages=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
    ),
    error=(
        0.001780011052225777,
        0.0008164344596567469,
        -0.007880878010261995,
        0.1447110071732629,
        -0.5823571654525552,
        0.45808210592918697,
        -1 / 66,
    ),
    stability=3.506,
    order=5,
    near=2.5e-4,
    far=0.05,
)
"""Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption."""

EULER = ExplicitRule(stages=((1.0,),), error=(), stability=2.0, order=1, near=0.5, far=0.6)
"""Euler's explicit method: one gradient-descent step. It has no error estimate."""

RODAS = RosenbrockRule(
    stages=(
        (1.544,),
        (0.9466785280815826, 0.2557011698983284),
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950),
        (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950, 1.0),
    ),
    couplings=(
        (-5.6688,),
        (-2.430093356833875, -0.2063599157091915),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
    ),
    diagonal=0.25,
    order=4,
    near=8e-4,
    far=0.016,
)
"""Hairer and Wanner (1996), Solving Ordinary Differential Equations II, RODAS: order 4(3), L-stable."""
