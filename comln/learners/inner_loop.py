"""Gradient descent on a task's support, through which meta-gradients may or may not go."""

__all__ = ["InnerGradient", "gradient_descent"]

import enum
from collections.abc import Callable
from typing import Any

import jax

from comln.typing import Scalar


class InnerGradient(enum.Enum):
    """What the gradients of an inner loop are to the meta-gradient.

    - `EXACT`: functions of the meta-parameters, differentiated again.
    - `FIRST_ORDER`: constants, as in first-order MAML: cheaper, and not exact.
    """

    EXACT = "exact"
    FIRST_ORDER = "first-order"


def gradient_descent(
    loss: Callable[[Any], Scalar], start: Any, step_sizes: Any, steps: int, gradient: InnerGradient
) -> Any:
    r"""Return the parameters after `steps` updates $\theta \leftarrow \theta - \alpha \odot \nabla L(\theta)$.

    - `start`: $\theta$ at first, a pytree of floating-point arrays.
    - `step_sizes`: $\alpha$, a number for all of them, or a pytree like `start`.

    >>> import jax.numpy as jnp
    >>> float(gradient_descent(lambda x: x**2, jnp.array(1.0), 0.25, 2, InnerGradient.EXACT))
    0.25
    """
    sizes = jax.tree.map(lambda _: step_sizes, start) if isinstance(step_sizes, float) else step_sizes

    def descend(parameters: Any, _: None) -> tuple[Any, None]:
        slope = jax.grad(loss)(parameters)
        if gradient is InnerGradient.FIRST_ORDER:
            slope = jax.lax.stop_gradient(slope)
        return jax.tree.map(lambda p, a, g: p - a * g, parameters, sizes, slope), None

    return jax.lax.scan(descend, start, length=steps)[0]
