"""iMAML: adapt a whole network near its start, and differentiate the optimum (Rajeswaran et al., 2019)."""

__all__ = ["IMAML", "ConjugateGradients", "ProximalPull"]

import enum
import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone, Identity
from comln.episode import Examples
from comln.learners.base import AbstractLearner, AdaptationInfo, mean_loss, refuse_other_ways, steps_taken
from comln.learners.inner_loop import InnerGradient, gradient_descent
from comln.learners.whole_network import WholeNetwork
from comln.typing import PRNGKeyArray, Scalar


class ProximalPull(enum.Enum):
    r"""Where the pull towards the start acts on the way to the optimum.

    - `EVERY_STEP`: in every step, so that the steps lead to the minimum.
    - `ONCE_AT_THE_END`: the steps follow the support loss alone, then one step of the same size follows the pull alone,
      $\phi \leftarrow \phi - \alpha\lambda(\phi - \theta)$: what the authors' program does in training.
    - `NOWHERE`: what it does in evaluation.
    """

    EVERY_STEP = "every-step"
    ONCE_AT_THE_END = "once-at-the-end"
    NOWHERE = "nowhere"


@dataclass(frozen=True)
class ConjugateGradients:
    r"""How the system of the implicit gradient, $((1 + \delta) I + H / (\lambda + \rho)) g = b$, is solved.

    - `iterations`: at most so many, from zero.
    - `damping`, `shift`: $\delta$ and $\rho$. Zero gives the implicit gradient; the authors' program has 1 and 10, and
      so another gradient.
    """

    iterations: int = 5
    damping: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"Conjugate gradients take at least 1 iteration, got {self.iterations}.")
        if not (0 <= self.damping < math.inf and 0 <= self.shift < math.inf):
            raise ValueError(f"Damping and shift must be at least 0 and finite, got {self.damping} and {self.shift}.")


class IMAML(AbstractLearner):
    r"""Adapt all weights to a minimum of $L(\phi) + \frac\lambda2 \lVert\phi - \theta\rVert^2$; $\theta$ is learned.

    The optimum is approached by gradient descent, which keeps nothing for a backward pass. If it were reached, the
    gradient of a query loss $\mathcal{L}(\phi)$ would be the solution of

    $$ (I + H/\lambda) g = \nabla \mathcal{L}(\phi), \qquad H = \nabla^2 L(\phi), $$

    and that is what is used, solved by conjugate gradients.

    - `network`: from raw examples to logits; all of its arrays are adapted.
    - `step`, `steps`: of gradient descent; `steps` may be changed after training.
    - `proximal`: $\lambda > 0$.
    - `solver`: of the linear system.
    - `pull`: where the second term acts; may be changed after training. The gradient takes the end for the minimum.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    network: WholeNetwork
    step: float
    steps: int
    proximal: float
    solver: ConjugateGradients = ConjugateGradients()
    pull: ProximalPull = ProximalPull.EVERY_STEP
    query_smoothing: float = 0.0
    backbone: AbstractBackbone = Identity()

    @classmethod
    def init(
        cls,
        network: AbstractBackbone,
        ways: int,
        key: PRNGKeyArray,
        step: float = 0.1,
        steps: int = 10,
        proximal: float = 0.5,
        solver: ConjugateGradients = ConjugateGradients(),
        pull: ProximalPull = ProximalPull.EVERY_STEP,
        query_smoothing: float = 0.0,
    ) -> "IMAML":
        """Return a learner that adapts `network` and a linear layer on top of it."""
        if not proximal > 0:
            raise ValueError(f"iMAML needs a proximal weight above 0, got {proximal}.")
        return cls(
            network=WholeNetwork.init(network, ways, key),
            step=step,
            steps=steps,
            proximal=proximal,
            solver=solver,
            pull=pull,
            query_smoothing=query_smoothing,
        )

    def ways_note(self, ways: int) -> str:
        return refuse_other_ways("iMAML", self.network.ways, ways)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[WholeNetwork, AdaptationInfo]:
        start, fixed = eqx.partition(self.network, eqx.is_inexact_array)

        def support_loss(weights: Any, support: Examples) -> Scalar:
            return mean_loss(eqx.combine(weights, fixed)(support.inputs), support)

        @jax.custom_vjp
        def find_optimum(start: Any, support: Examples) -> Any:
            def distance(weights: Any) -> Scalar:
                squares = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), weights, start)
                return self.proximal / 2 * jnp.sum(jnp.stack(jax.tree.leaves(squares)))

            def loss(weights: Any) -> Scalar:
                value = support_loss(weights, support)
                return value + distance(weights) if self.pull is ProximalPull.EVERY_STEP else value

            end = gradient_descent(loss, start, self.step, self.steps, InnerGradient.FIRST_ORDER)
            back = 1 if self.pull is ProximalPull.ONCE_AT_THE_END else 0
            return gradient_descent(distance, end, self.step, back, InnerGradient.FIRST_ORDER)

        def forward(start: Any, support: Examples) -> tuple[Any, tuple[Any, Examples]]:
            optimum = find_optimum(start, support)
            return optimum, (optimum, support)

        def backward(residuals: tuple[Any, Examples], cotangent: Any) -> tuple[Any, Examples]:
            optimum, support = residuals

            def slope(weights: Any, support: Examples) -> Any:
                return jax.grad(support_loss)(weights, support)

            def multiply(vector: Any) -> Any:
                curved = jax.jvp(lambda weights: slope(weights, support), (optimum,), (vector,))[1]
                return jax.tree.map(
                    lambda v, hv: (1 + self.solver.damping) * v + hv / (self.proximal + self.solver.shift),
                    vector,
                    curved,
                )

            start_bar, _ = jax.scipy.sparse.linalg.cg(multiply, cotangent, tol=0.0, maxiter=self.solver.iterations)
            _, pull_back = jax.vjp(lambda support: slope(optimum, support), support)
            (support_bar,) = pull_back(jax.tree.map(lambda x: -x / self.proximal, start_bar))
            return start_bar, support_bar

        find_optimum.defvjp(forward, backward)
        optimum = find_optimum(start, support)
        return eqx.combine(optimum, fixed), steps_taken(optimum, self.steps)
