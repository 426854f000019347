"""LRD2: logistic regression with a bias on learned embeddings, by Newton's method (Bertinetto et al., 2019)."""

__all__ = ["LRD2"]

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead, append_one, newton_logistic
from comln.learners.base import AbstractLearner, AdaptationInfo, steps_taken
from comln.typing import PRNGKeyArray


class LRD2(AbstractLearner):
    r"""One logistic regression on $[\phi, 1]$ for each class against the others; their scores are the logits.

    - `backbone`: the embedding network, its outputs without division: the regularisation is meant for them.
    - `regularisation`: weight of $\lVert w \rVert^2 / 2$ beside the sum of the losses, > 0. The bias is penalised too.
    - `iterations`: Newton steps from zero; gradients go through all of them.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    regularisation: float = 50.0
    iterations: int = 5
    query_smoothing: float = 0.0

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        inputs = append_one(support.inputs)
        weights = newton_logistic(inputs, support.labels, support.mask, self.regularisation, self.iterations)
        head = LinearHead(weights[:, :-1], weights[:, -1])
        return head, steps_taken(head, self.iterations)
