"""YOUR METHOD: what it does to a task, in one line (Author, year).

A skeleton to copy to `comln/learners/<your_method>.py`. It works as it stands: it predicts that all classes are alike.
"""

__all__ = ["YourMethod"]

import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.heads import LinearHead
from comln.learners.base import AbstractLearner, AdaptationInfo, steps_taken
from comln.typing import PRNGKeyArray, Scalar


class YourMethod(AbstractLearner):
    r"""Logits $\dots$: the equation, in the letters of its paper, each mapped to a name.

    - `backbone`: the embedding network, shared by all tasks.
    - `strength`: an array is learned over tasks.
    - `steps`: a Python number is fixed, and may be changed after training by `dataclasses.replace`.
    - `query_smoothing`: share of each query label that is spread over the other classes, in $[0, 1)$.
    """

    backbone: AbstractBackbone
    strength: Scalar
    steps: int = 5
    query_smoothing: float = 0.0

    @classmethod
    def init(cls, backbone: AbstractBackbone, strength: float = 1.0) -> "YourMethod":
        """Return an untrained learner."""
        return cls(backbone=backbone, strength=jnp.asarray(strength, jnp.result_type(float)))

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        # One task: inputs (support, feature), labels (support, way), mask (support,), where zero marks padding.
        ways, features = support.labels.shape[1], support.inputs.shape[1]
        head = LinearHead(self.strength * jnp.zeros((ways, features), support.inputs.dtype))
        return head, steps_taken(head, self.steps)
