"""How meta-parameters are updated: an Optax transformation with a group of its own for the horizon."""

__all__ = ["SGD", "Adam"]

import math
from collections.abc import Hashable
from dataclasses import dataclass

import optax

from comln.learners.base import AbstractLearner, ParameterGroup


@dataclass(frozen=True)
class Adam:
    r"""Adam with a cosine schedule, and the horizon in a group of its own.

    A step of $\log T$ multiplies $T$, and the loss is nearly flat in it: with the network's step size, T runs away.
    Weight decay never touches the horizon.
    """

    learning_rate: float = 3e-3
    """of the network and the initial weights, at its highest"""
    horizon_learning_rate: float = 1e-2
    """of log T, at its highest: about the largest relative change of T in a step"""
    warmup: float = 0.05
    """share of the steps in which the rates rise from zero"""
    weight_decay: float = 5e-4
    """decoupled, of the network and the initial weights"""
    clip: float = 10.0
    """largest norm of the network's gradient; longer ones are shortened to it"""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "horizon_learning_rate", "weight_decay", "clip"):
            _check_rate(name, getattr(self, name))
        if not 0 <= self.warmup < 1:
            raise ValueError(f"The warm-up is a share of the steps, at least 0 and below 1, got {self.warmup}.")

    def build(self, learner: AbstractLearner, steps: int) -> optax.GradientTransformation:
        """Return the transformation for a run of `steps` steps."""

        def schedule(peak: float) -> optax.Schedule:
            rise = max(1, round(self.warmup * steps))
            return optax.warmup_cosine_decay_schedule(0.0, peak, rise, max(steps, rise + 1))

        network = optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(schedule(self.learning_rate), weight_decay=self.weight_decay),
        )
        horizon = optax.adam(schedule(self.horizon_learning_rate))
        return _by_group(learner, network, horizon)


@dataclass(frozen=True)
class SGD:
    r"""Nesterov's SGD with the step schedule of Lee et al. (2019), for all meta-parameters: the paper's protocol (E.5).

    The rate falls at 19/60, 39/60 and 49/60 of the run. Weight decay is added to the gradient before momentum, and does
    not touch the horizon. With its step of 0.1 the horizon may run away.
    """

    learning_rate: float = 0.1
    """at the start; later 0.006, 0.0012 and 0.00024 of it times ten"""
    momentum: float = 0.9
    """Nesterov's"""
    weight_decay: float = 5e-4
    """of the network and the initial weights"""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "momentum", "weight_decay"):
            _check_rate(name, getattr(self, name))

    def build(self, learner: AbstractLearner, steps: int) -> optax.GradientTransformation:
        """Return the transformation for a run of `steps` steps."""
        rates = [self.learning_rate * factor for factor in (1.0, 0.06, 0.012, 0.0024)]
        drops = [round(steps * epoch / 60) for epoch in (19, 39, 49)]
        schedule = optax.join_schedules([optax.constant_schedule(rate) for rate in rates], drops)
        momentum = optax.sgd(schedule, momentum=self.momentum, nesterov=True)
        network = optax.chain(optax.add_decayed_weights(self.weight_decay), momentum)
        return _by_group(learner, network, momentum)


def _check_rate(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"The optimiser's {name} must be at least 0 and finite, got {value}.")


def _by_group(
    learner: AbstractLearner, network: optax.GradientTransformation, horizon: optax.GradientTransformation
) -> optax.GradientTransformation:
    groups: dict[Hashable, optax.GradientTransformation] = {
        ParameterGroup.NETWORK: network,
        ParameterGroup.HORIZON: horizon,
    }
    return optax.partition(groups, learner.parameter_groups())
