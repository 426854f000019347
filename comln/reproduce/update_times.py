"""What an update of COMLN costs as a function of its solver steps, measured in turns."""

__all__ = ["UpdateCost", "update_cost"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from comln.backbones import Normalisation
from comln.data.batches import make_batch, to_episodes
from comln.data.sampling import Sampler
from comln.data.source import Split
from comln.episodic import meta_loss
from comln.recipes.experiment import Experiment
from comln.reproduce.measure import interleaved


@dataclass(frozen=True)
class UpdateCost:
    """Time of a meta-gradient of one batch, network included.

    - `horizons`: at which it was measured, in turns, from short to long.
    - `solver_steps`, `ms`: steps of the longest task, and the median time.
    """

    horizons: tuple[float, ...]
    solver_steps: tuple[int, ...]
    ms: tuple[float, ...]

    def seconds(self, solver_steps: Sequence[int]) -> float:
        """Return the time of updates with so many solver steps each: on the lines between the points, and on from them.

        >>> UpdateCost((1.0, 10.0, 100.0), (5, 10, 20), (100.0, 110.0, 140.0)).seconds([5, 15, 30])
        0.395
        """
        grid, times = np.asarray(self.solver_steps, float), np.asarray(self.ms)
        steps = np.asarray(solver_steps, float)
        slope = (times[-1] - times[-2]) / max(grid[-1] - grid[-2], 1.0)
        beyond = slope * np.maximum(steps - grid[-1], 0.0)
        return round(float(np.sum(np.interp(steps, grid, times) + beyond)) / 1e3, 6)


def update_cost(
    experiment: Experiment, splits: Mapping[str, Split], horizons: Sequence[float], seconds: float
) -> UpdateCost:
    """Measure the meta-gradient of an untrained COMLN at each of the horizons, for about so many seconds each."""
    learner: Any = experiment.build(0)
    split = splits["train"]
    numbers = range(experiment.tasks_per_step)
    batch = make_batch(Sampler(split, experiment.train), 0, numbers)
    episodes = to_episodes(batch, split.augmentation, jax.random.key(0), split.scaling)
    statistics = learner.backbone.initial_statistics()
    parameters, fixed = eqx.partition(learner, eqx.is_inexact_array)

    def gradient(parameters: Any) -> Any:
        def loss(parameters: Any) -> Any:
            whole = eqx.combine(parameters, fixed)
            return meta_loss(whole, episodes, statistics, Normalisation.BATCH, jax.random.key(0))

        (_, (_, info)), slope = jax.value_and_grad(loss, has_aux=True)(parameters)
        return info.solver_steps, slope

    jitted = jax.jit(gradient)

    def at(horizon: float) -> Any:
        log_horizon = jnp.log(jnp.asarray(horizon, learner.log_horizon.dtype))
        return eqx.tree_at(lambda tree: tree.log_horizon, parameters, log_horizon)

    arguments = {str(horizon): (gradient, (at(horizon),)) for horizon in horizons}
    measured = interleaved(arguments, seconds)
    steps = [int(jitted(at(horizon))[0]) for horizon in horizons]
    ms = [measured[str(horizon)].median_ms for horizon in horizons]
    return UpdateCost(tuple(horizons), tuple(steps), tuple(ms))
