"""What the configuration of any method is: settings with ranges, from which a learner is built."""

__all__ = [
    "AbstractLearnerConfig",
    "Count",
    "CountFrom1",
    "Finite",
    "NotNegative",
    "Positive",
    "Range",
    "Setting",
    "Share",
]

import abc
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

import jax

from comln.backbones import AbstractBackbone
from comln.backbones.layers import convolve, convolve_by_patches
from comln.learners import AbstractLearner
from comln.recipes.backbones import BackboneConfig, ResNet12Config
from comln.typing import Array, PRNGKeyArray


@dataclass(frozen=True)
class Setting:
    """What a learner is built for.

    - `network`: the embedding network, or the whole one for methods that adapt it.
    - `example_shape`: height, width and channels of an image, or the length of an embedding.
    - `ways`: of the training tasks.
    - `key`: of the initial weights.
    """

    network: BackboneConfig
    example_shape: tuple[int, ...]
    ways: int
    key: PRNGKeyArray

    def backbone(self, convolve: Callable[[Array, Array], Array] = convolve) -> AbstractBackbone:
        """Return the untrained network."""
        key, _ = jax.random.split(self.key)
        return self.network.build(self.example_shape, key, convolve)

    def adaptable_backbone(self) -> AbstractBackbone:
        """Return the untrained network in a form that may be differentiated twice, with weights for every task.

        **Raises:** `ValueError` for dropout, which the inner steps of these methods do not have.
        """
        if isinstance(self.network, ResNet12Config) and (self.network.dropout > 0 or self.network.drop_block > 0):
            raise ValueError(
                "Methods that adapt a whole network to each task do it without dropout and DropBlock. "
                "Add --backbone.dropout 0 --backbone.drop-block 0."
            )
        return self.backbone(convolve_by_patches)

    def head_key(self) -> PRNGKeyArray:
        """Return the key of everything but the network."""
        return jax.random.split(self.key)[1]


@dataclass(frozen=True)
class Range:
    """Which numbers a setting may be, as a test and in words."""

    holds: Callable[[float | int], bool]
    words: str


Finite = Annotated[float, Range(math.isfinite, "finite")]
"""A setting that may be any number."""
Positive = Annotated[float, Range(lambda x: 0 < x < math.inf, "above 0 and finite")]
"""One that is above zero."""
NotNegative = Annotated[float, Range(lambda x: 0 <= x < math.inf, "at least 0 and finite")]
"""One that may also be zero."""
Share = Annotated[float, Range(lambda x: 0 <= x < 1, "at least 0 and below 1")]
"""A part of a whole, which is not all of it."""
Count = Annotated[int, Range(lambda x: x >= 0, "at least 0")]
"""How many; none as well."""
CountFrom1 = Annotated[int, Range(lambda x: x >= 1, "at least 1")]
"""How many, at least one."""


class AbstractLearnerConfig(abc.ABC):
    """What can be set of a method: the fields of a data class, whose types say which numbers they may be."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for the first setting that is not in its range."""
        for setting in dataclasses.fields(cast(Any, self)):
            value = getattr(self, setting.name)
            for allowed in getattr(setting.type, "__metadata__", ()):
                if isinstance(allowed, Range) and not allowed.holds(value):
                    raise ValueError(f"The learner's {setting.name} must be {allowed.words}, got {value}.")

    @abc.abstractmethod
    def build(self, setting: Setting) -> AbstractLearner:
        """Return the untrained learner."""

    def at_test(self, learner: AbstractLearner) -> AbstractLearner:
        """Return the learner as it is evaluated."""
        return learner

    def adapts_whole_network(self) -> bool:
        """Whether a task's network is its own, which ties its normalisation to the statistics of the task's batch."""
        return False
