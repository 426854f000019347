"""COMLN: adapt a linear head along a gradient flow, for a meta-learned time (Deleu et al., 2022)."""

__all__ = ["COMLN", "InitialHead"]

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones import AbstractBackbone
from comln.episode import Examples
from comln.flow.gradient_flow import gradient_flow
from comln.flow.integrator import FlowResult, Integrator
from comln.flow.meta_gradients import AbstractMetaGradient, SpanAdjoint
from comln.heads import LinearHead, prototypes
from comln.learners.base import AbstractLearner, AdaptationInfo, ParameterGroup, smooth_labels
from comln.learners.task_horizon import TaskHorizon
from comln.typing import Array, Float, PRNGKeyArray, Scalar, ScalarLike


class InitialHead(enum.Enum):
    """Where the flow starts: from weights that are meta-learned, from zero, or from the task's class prototypes."""

    LEARNED = "learned"
    ZERO = "zero"
    PROTOTYPES = "prototypes"


class COMLN(AbstractLearner):
    r"""Adapt a linear head along the gradient flow of the support loss, for a meta-learned time.

    The embedding network, the initial weights $W_0$ and the horizon $T$ are learned by exact meta-gradients.

    - `backbone`: the embedding network.
    - `initial_weights`: $W_0$, shape `(way, feature)`; `None` unless `initial_head` is `InitialHead.LEARNED`.
    - `log_horizon`: $\log T$.
    - `initial_head`: where the flow starts.
    - `proximal`: $\lambda \ge 0$ of equation 14.
    - `support_smoothing`, `query_smoothing`: share of each label that is spread over the other classes, in $[0, 1)$.
    - `task_horizon`: a factor of $T$ for each task; `None` where all tasks share $T$.
    """

    backbone: AbstractBackbone
    initial_weights: Float[Array, "way feature"] | None
    log_horizon: Scalar
    initial_head: InitialHead = InitialHead.LEARNED
    proximal: float = 0.0
    support_smoothing: float = 0.0
    query_smoothing: float = 0.0
    meta_gradient: AbstractMetaGradient = SpanAdjoint()
    integrator: Integrator = Integrator()
    task_horizon: TaskHorizon | None = None

    @classmethod
    def init(
        cls,
        backbone: AbstractBackbone,
        ways: int,
        key: PRNGKeyArray,
        initial_horizon: float = 1.0,
        initial_head: InitialHead = InitialHead.LEARNED,
        proximal: float = 0.0,
        support_smoothing: float = 0.0,
        query_smoothing: float = 0.0,
        meta_gradient: AbstractMetaGradient = SpanAdjoint(),
        integrator: Integrator = Integrator(),
        task_horizon: TaskHorizon | None = None,
    ) -> "COMLN":
        r"""Return a learner whose $W_0$ has entries from $N(0, 1/d)$ and whose horizon is `initial_horizon` > 0."""
        if not (initial_horizon > 0 and jnp.isfinite(initial_horizon)):
            raise ValueError(f"The initial horizon must be positive and finite, got {initial_horizon}.")
        if not proximal >= 0:
            raise ValueError(f"The proximal weight must be at least 0, got {proximal}.")
        for smoothing in (support_smoothing, query_smoothing):
            if not 0 <= smoothing < 1:
                raise ValueError(f"Label smoothing must be at least 0 and below 1, got {smoothing}.")
        weights = None
        if initial_head is InitialHead.LEARNED:
            size = backbone.embedding_size
            weights = jax.random.normal(key, (ways, size)) / jnp.sqrt(size)
        return cls(
            backbone=backbone,
            initial_weights=weights,
            log_horizon=jnp.log(jnp.asarray(initial_horizon, jnp.result_type(float))),
            initial_head=initial_head,
            proximal=proximal,
            support_smoothing=support_smoothing,
            query_smoothing=query_smoothing,
            meta_gradient=meta_gradient,
            integrator=integrator,
            task_horizon=task_horizon,
        )

    @property
    def horizon(self) -> Scalar:
        r"""$T = \exp(\text{log\_horizon})$: positive by construction."""
        return jnp.exp(self.log_horizon)

    def with_horizon(self, horizon: ScalarLike) -> "COMLN":
        """Return the learner with one horizon, at least 0, for all tasks, whatever was learned."""
        return eqx.tree_at(
            lambda learner: (learner.log_horizon, learner.task_horizon),
            self,
            (jnp.log(jnp.asarray(horizon, self.log_horizon.dtype)), None),
            is_leaf=lambda node: node is None,
        )

    def scalars(self) -> dict[str, Scalar]:
        return {"horizon": self.horizon}

    def ways_note(self, ways: int) -> str:
        if self.initial_weights is None or len(self.initial_weights) == ways:
            return ""
        return (
            f"W0 was learned for {len(self.initial_weights)} ways; for {ways} ways the flow starts from zero instead."
        )

    def parameter_groups(self) -> Any:
        horizon = jax.tree.map(lambda _: ParameterGroup.HORIZON, eqx.filter(self.task_horizon, eqx.is_inexact_array))
        return eqx.tree_at(
            lambda learner: (learner.log_horizon, learner.task_horizon),
            super().parameter_groups(),
            (ParameterGroup.HORIZON, horizon),
            is_leaf=lambda node: node is None,
        )

    def horizon_for(self, support: Examples) -> Scalar:
        """Return the horizon of a task with this support set."""
        if self.task_horizon is None:
            return self.horizon
        return self.horizon * self.task_horizon(support, LinearHead(self.start_for(support))(support.inputs))

    def adapt(self, support: Examples, key: PRNGKeyArray | None = None) -> tuple[LinearHead, AdaptationInfo]:
        return self.adapt_for(self.horizon_for(support), support)

    def adapt_for(self, horizon: Scalar, support: Examples) -> tuple[LinearHead, AdaptationInfo]:
        """Return the head that the flow reaches at another `horizon` than the learned one."""
        weights, info = gradient_flow(
            self.start_for(support),
            support.inputs,
            smooth_labels(support.labels, self.support_smoothing),
            horizon,
            mask=support.mask,
            proximal=self.proximal,
            meta_gradient=self.meta_gradient,
            integrator=self.integrator,
        )
        return LinearHead(weights), AdaptationInfo(info.result == FlowResult.successful, info.steps)

    def start_for(self, support: Examples) -> Float[Array, "way feature"]:
        """Return the weights that the flow of a task with this support set starts from."""
        ways, size = support.labels.shape[1], support.inputs.shape[1]
        match self.initial_head:
            case InitialHead.PROTOTYPES:
                return prototypes(support.inputs, support.labels, support.mask)
            case InitialHead.LEARNED if self.initial_weights is not None and len(self.initial_weights) == ways:
                return self.initial_weights
            case _:
                # A softmax does not see a shift common to all classes: zero rows stand for the mean of learned rows.
                return jnp.zeros((ways, size), support.inputs.dtype)
