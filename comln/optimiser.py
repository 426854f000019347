"""How meta-parameters are updated: an Optax transformation with a group of its own for the horizon."""

__all__ = ["SGD", "Adam", "StepwiseAdam"]

import functools
import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
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
        _check_rates(self, "learning_rate", "horizon_learning_rate", "weight_decay", "clip")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"The warm-up is a share of the steps, at least 0 and below 1, got {self.warmup}.")

    def build(self, learner: AbstractLearner, steps: int) -> optax.GradientTransformation:
        """Return the transformation for a run of `steps` steps; the same one for learners of the same groups."""
        return _adam(self, steps, _groups(learner))


@dataclass(frozen=True)
class SGD:
    r"""Nesterov's SGD with the step schedule of Lee et al. (2019), for all meta-parameters: the paper's protocol (E.5).

    The rate falls at 19/60, 39/60 and 49/60 of the run. Weight decay is added to the gradient before momentum, and does
    not touch the horizon. With its step of 0.1 the horizon may run away.
    """

    learning_rate: float = 0.1
    """at the start"""
    falls: tuple[float, float, float] = (0.06, 0.012, 0.0024)
    """what is left of the rate after each fall"""
    momentum: float = 0.9
    """Nesterov's"""
    weight_decay: float = 5e-4
    """of the network and the initial weights"""

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "momentum", "weight_decay")
        object.__setattr__(self, "falls", tuple(float(fall) for fall in self.falls))

    def build(self, learner: AbstractLearner, steps: int) -> optax.GradientTransformation:
        """Return the transformation for a run of `steps` steps; the same one for learners of the same groups."""
        return _sgd(self, steps, _groups(learner))


@dataclass(frozen=True)
class StepwiseAdam:
    """Adam with a rate that is constant, or falls by a factor now and then: as the authors of most methods train.

    Gradients are clipped before Adam sees them: number by number, then array by array. All meta-parameters move alike.
    """

    learning_rate: float = 1e-3
    """at the start"""
    decay: float = 1.0
    """factor of each fall of the rate; 1 for a constant rate"""
    decay_every: int = 5000
    """updates between two falls"""
    epsilon: float = 1e-8
    """added to the root of the mean square"""
    clip_numbers: float | None = None
    """largest size of each number of the gradient"""
    clip_arrays: float | None = None
    """largest norm of each array of the gradient"""

    def __post_init__(self) -> None:
        _check_rates(self, "learning_rate", "decay", "epsilon")
        for name, clip in (("clip_numbers", self.clip_numbers), ("clip_arrays", self.clip_arrays)):
            if clip is not None and not clip > 0:
                raise ValueError(f"The optimiser's {name} must be above 0, or left out, got {clip}.")
        if self.decay_every < 1:
            raise ValueError(f"The optimiser's decay_every must be at least 1, got {self.decay_every}.")

    def build(self, learner: AbstractLearner, steps: int) -> optax.GradientTransformation:
        """Return the transformation, which is the same for a run of any number of `steps`."""
        return _stepwise_adam(self)


def _check_rates(optimiser: Any, *names: str) -> None:
    """Raise `ValueError` for what is no rate; make numbers of other libraries plain ones, which can be compared."""
    for name in names:
        value = getattr(optimiser, name)
        if not 0 <= value < math.inf:
            raise ValueError(f"The optimiser's {name} must be at least 0 and finite, got {value}.")
        object.__setattr__(optimiser, name, float(value))


Groups = tuple[ParameterGroup, ...]


def _groups(learner: AbstractLearner) -> Groups:
    """Return the group of each array that is meta-learned, in order."""
    return tuple(jax.tree.leaves(learner.parameter_groups()))


# A program is compiled for one transformation. Those that are alike are one and the same, so that trainings that differ
# in numbers alone, as in their seeds, share it.


@functools.lru_cache(maxsize=64)
def _adam(settings: Adam, steps: int, groups: Groups) -> Any:
    def schedule(peak: float) -> optax.Schedule:
        rise = max(1, round(settings.warmup * steps))
        return optax.warmup_cosine_decay_schedule(0.0, peak, rise, max(steps, rise + 1))

    network = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule(settings.learning_rate), weight_decay=settings.weight_decay),
    )
    scale = optax.adam(schedule(settings.learning_rate))
    horizon = optax.adam(schedule(settings.horizon_learning_rate))
    return _by_group(groups, network, scale, horizon)


@functools.lru_cache(maxsize=64)
def _sgd(settings: SGD, steps: int, groups: Groups) -> Any:
    rates = [settings.learning_rate * factor for factor in (1.0, *settings.falls)]
    drops = [round(steps * epoch / 60) for epoch in (19, 39, 49)]
    schedule = optax.join_schedules([optax.constant_schedule(rate) for rate in rates], drops)
    momentum = optax.sgd(schedule, momentum=settings.momentum, nesterov=True)
    network = optax.chain(optax.add_decayed_weights(settings.weight_decay), momentum)
    return _by_group(groups, network, momentum, momentum)


@functools.lru_cache(maxsize=64)
def _stepwise_adam(settings: StepwiseAdam) -> Any:
    schedule = optax.exponential_decay(settings.learning_rate, settings.decay_every, settings.decay, staircase=True)
    parts: list[optax.GradientTransformation] = [optax.adam(schedule, eps=settings.epsilon)]
    if settings.clip_arrays is not None:
        parts.insert(0, optax.stateless(functools.partial(_shorten, longest=settings.clip_arrays)))
    if settings.clip_numbers is not None:
        parts.insert(0, optax.clip(settings.clip_numbers))
    return optax.chain(*parts)


def _shorten(gradient: Any, _: Any, longest: float) -> Any:
    def shorten(x: jax.Array) -> jax.Array:
        return x * (longest / jnp.maximum(jnp.linalg.norm(x.ravel()), longest)).astype(x.dtype)

    return jax.tree.map(shorten, gradient)


def _by_group(
    groups: Groups,
    network: optax.GradientTransformation,
    scale: optax.GradientTransformation,
    horizon: optax.GradientTransformation,
) -> optax.GradientTransformation:
    transformations: dict[Hashable, optax.GradientTransformation] = {
        ParameterGroup.NETWORK: network,
        ParameterGroup.SCALE: scale,
        ParameterGroup.HORIZON: horizon,
    }
    return optax.partition(transformations, lambda arrays: jax.tree.unflatten(jax.tree.structure(arrays), groups))
