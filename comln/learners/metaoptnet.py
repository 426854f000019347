"""MetaOptNet: a convex classifier on learned embeddings, solved for each task (Lee et al., 2019)."""

__all__ = ["MetaOptNetRidge", "MetaOptNetSVM"]

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead, ridge, svm
from comln.learners.base import AbstractLearner, AdaptationInfo, ParameterGroup, steps_taken
from comln.typing import PRNGKeyArray, Scalar


class MetaOptNetRidge(AbstractLearner):
    r"""Ridge regression onto the labels: logits $2\gamma W\phi$ with $W = Y^\top (\Phi\Phi^\top + \rho I)^{-1}\Phi$.

    - `backbone`: the embedding network, its outputs without division: $\rho$ is meant for them.
    - `scale`: $\gamma$, learned.
    - `regularisation`: $\rho > 0$.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    scale: Scalar
    regularisation: float = 50.0
    query_smoothing: float = 0.0

    @classmethod
    def init(
        cls, backbone: AbstractBackbone, regularisation: float = 50.0, query_smoothing: float = 0.0
    ) -> "MetaOptNetRidge":
        """Return a learner whose scale is one."""
        return cls(
            backbone=backbone,
            scale=jnp.ones(()),
            regularisation=regularisation,
            query_smoothing=query_smoothing,
        )

    def scalars(self) -> dict[str, Scalar]:
        return {"scale": self.scale}

    def parameter_groups(self) -> Any:
        return eqx.tree_at(lambda learner: learner.scale, super().parameter_groups(), ParameterGroup.SCALE)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        weights = ridge(support.inputs, support.labels, support.mask, self.regularisation)
        head = LinearHead(2 * self.scale * weights)
        return head, steps_taken(head, 0)


class MetaOptNetSVM(AbstractLearner):
    r"""The multi-class support vector machine of Crammer and Singer (2001): logits $\gamma W\phi$.

    - `backbone`: the embedding network, its outputs without division: $C$ is meant for them.
    - `scale`: $\gamma$, learned.
    - `bound`: $C > 0$.
    - `iterations`: of the solver; may be changed after training.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    scale: Scalar
    bound: float = 0.1
    iterations: int = 15
    query_smoothing: float = 0.0

    @classmethod
    def init(
        cls, backbone: AbstractBackbone, bound: float = 0.1, iterations: int = 15, query_smoothing: float = 0.0
    ) -> "MetaOptNetSVM":
        """Return a learner whose scale is one."""
        return cls(
            backbone=backbone,
            scale=jnp.ones(()),
            bound=bound,
            iterations=iterations,
            query_smoothing=query_smoothing,
        )

    def scalars(self) -> dict[str, Scalar]:
        return {"scale": self.scale}

    def parameter_groups(self) -> Any:
        return eqx.tree_at(lambda learner: learner.scale, super().parameter_groups(), ParameterGroup.SCALE)

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        weights = svm(support.inputs, support.labels, support.mask, self.bound, iterations=self.iterations)
        head = LinearHead(self.scale * weights)
        return head, steps_taken(head, self.iterations)
