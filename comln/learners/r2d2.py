"""R2D2: ridge regression with a bias on learned embeddings, solved for each task (Bertinetto et al., 2019)."""

__all__ = ["R2D2"]

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead, append_one, ridge
from comln.learners.base import AbstractLearner, AdaptationInfo, ParameterGroup, steps_taken
from comln.typing import PRNGKeyArray, Scalar


class R2D2(AbstractLearner):
    r"""Logits $a W[\phi, 1] + b$ with $W$ the ridge regression onto the labels, its mean error against $\rho$.

    With $X$ the rows $[\phi_m, 1] / \sqrt M$ and the labels divided likewise, $W = Y^\top (XX^\top + \rho I)^{-1} X$:
    ridge regression on $[\phi, 1]$ with the weight $\rho M$. The bias is penalised too. ($b$ is common to all classes,
    and a softmax does not see it; it is here because the authors learn it.)

    - `backbone`: the embedding network, its outputs without division: $\rho$ is meant for them.
    - `scale`, `shift`: $a$ and $b$, learned.
    - `regularisation`: $\rho > 0$.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    scale: Scalar
    shift: Scalar
    regularisation: float = 50.0
    query_smoothing: float = 0.0

    @classmethod
    def init(
        cls,
        backbone: AbstractBackbone,
        regularisation: float = 50.0,
        initial_scale: float = 1e-4,
        query_smoothing: float = 0.0,
    ) -> "R2D2":
        """Return a learner whose logits are scaled by `initial_scale`, and not shifted."""
        number = jnp.result_type(float)
        scale = jnp.asarray(initial_scale, number)
        return cls(
            backbone=backbone,
            scale=scale,
            shift=jnp.zeros((), number),
            regularisation=regularisation,
            query_smoothing=query_smoothing,
        )

    def scalars(self) -> dict[str, Scalar]:
        return {"scale": self.scale}

    def parameter_groups(self) -> Any:
        scales = (ParameterGroup.SCALE, ParameterGroup.SCALE)
        return eqx.tree_at(lambda learner: (learner.scale, learner.shift), super().parameter_groups(), scales)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        penalty = self.regularisation * jnp.sum(support.mask)
        weights = self.scale * ridge(append_one(support.inputs), support.labels, support.mask, penalty)
        head = LinearHead(weights[:, :-1], weights[:, -1] + self.shift)
        return head, steps_taken(head, 0)
