"""The training loop (Algorithm 1): draw tasks, adapt, query, update; the same for every learner."""

__all__ = ["Divergence", "StepReport", "TrainState", "meta_train", "start_training"]

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from comln.backbones import Normalisation
from comln.data.augmentation import AbstractAugmentation
from comln.data.batches import TaskBatch, look_up, make_batch, make_positions, to_episodes
from comln.data.pixel_scaling import PixelScaling
from comln.data.prefetch import prefetch
from comln.data.residence import Residence, place
from comln.data.sampling import Sampler
from comln.devices import replicate, share_out
from comln.episodic import meta_loss
from comln.learners import AbstractLearner
from comln.typing import Array, Bool, Int, Num, PRNGKeyArray


class TrainState(eqx.Module):
    """All that is needed to go on: with the seed, it determines the rest of the run.

    - `learner`: the meta-parameters.
    - `statistics`: running averages of the backbone.
    - `optimiser_state`: the optimiser's memory.
    - `step`: updates made so far.
    """

    learner: AbstractLearner
    statistics: Any
    optimiser_state: Any
    step: Int[Array, ""]


@dataclass(frozen=True)
class StepReport:
    """What is nice to know of one update.

    - `step`: its number, from 1.
    - `values`: loss, accuracy, gradient_norm, dropped_tasks, solver_steps, and the learner's own scalars, by name.
    - `tasks_per_second`: over the time since the last report.
    """

    step: int
    values: dict[str, float]
    tasks_per_second: float


class Divergence(RuntimeError):
    """Training cannot go on. `step` is the update at which it broke, `reason` says what did and what to do."""

    def __init__(self, step: int, reason: str) -> None:
        self.step, self.reason = step, reason
        super().__init__(reason)


def start_training(learner: AbstractLearner, optimiser: optax.GradientTransformation) -> TrainState:
    """Return the state before the first update."""
    return TrainState(
        learner,
        learner.backbone.initial_statistics(),
        optimiser.init(eqx.filter(learner, eqx.is_inexact_array)),
        jnp.zeros((), jnp.int32),
    )


def meta_train(
    state: TrainState,
    optimiser: optax.GradientTransformation,
    samplers: Sequence[Sampler],
    *,
    steps: int,
    tasks_per_step: int,
    seed: int,
    on_step: Callable[[StepReport], None] = lambda report: None,
    on_state: Callable[[TrainState], bool | None] = lambda state: None,
    should_stop: Callable[[], bool] = lambda: False,
    mesh: Mesh | None = None,
    examples_on: Residence = Residence.AUTO,
) -> TrainState:
    """Return the state after `steps` updates in all, going on from `state`, or that at which it was to stop.

    Update number i uses tasks i `tasks_per_step` to (i + 1) `tasks_per_step` - 1 of `seed`, and batch statistics.

    - `samplers`: of which each update takes one at random, a pure function of `seed` and its number: for tasks of
      several shapes, or from several sources.
    - `on_step`: called after each update, in order.
    - `on_state`: called for each state, in order, once it is known to be sound: its numbers are finite, and so is the
      loss of the update that follows it, if one does. If it returns true, training ends with that state.
    - `should_stop`: asked after each update; if it returns true, training ends with its state.
    - `mesh`: the devices that tasks are spread over, if there are several; `tasks_per_step` is a multiple of their
      number. Each process makes the tasks of its own devices.
    - `examples_on`: where examples are kept. On the device, an update gathers them there by their positions.

    **Raises:** `Divergence` where a loss, a gradient or a parameter is not finite, or where every task of an update
    failed; `on_state` has seen neither that state nor the one that led to it.
    """

    def sampler_of(step: int) -> Sampler:
        return samplers[int(np.random.default_rng((seed, step)).integers(len(samplers)))]

    def tasks_of(step: int) -> TaskBatch:
        own = tasks_per_step // jax.process_count()
        begin = step * tasks_per_step + own * jax.process_index()
        sampler = sampler_of(step)
        make = make_batch if on_device(sampler.split) is None else make_positions
        batch = make(sampler, seed, range(begin, begin + own))
        return batch if mesh is None else share_out(batch, mesh)

    on_device = place([sampler.split for sampler in samplers], examples_on, mesh)
    key, first = jax.random.key(seed), int(state.step)
    if mesh is not None:
        state, key = replicate(state, mesh), jax.random.wrap_key_data(replicate(jax.random.key_data(key), mesh))
    since, sound_so_far = time.perf_counter(), None
    for batch in prefetch(tasks_of, first, steps):
        split = sampler_of(int(state.step)).split
        state, values, finite = update(
            state, batch, key, optimiser, split.augmentation, split.scaling, mesh, on_device(split)
        )
        # Processes that run ahead of each other can wait for each other for ever.
        jax.block_until_ready(state)
        report = {name: float(value) for name, value in values.items()}
        step, now = int(state.step), time.perf_counter()
        if report["dropped_tasks"] == tasks_per_step:
            raise Divergence(
                step,
                f"No task of step {step} could be adapted: its embeddings are not finite, or the solver ran out of "
                "steps. Lower the learning rates, or the sizes of what the method adapts with.",
            )
        if not finite:
            raise Divergence(step, f"A number is not finite at step {step}. Lower the learning rates.")
        if sound_so_far is not None and on_state(sound_so_far):
            return sound_so_far
        on_step(StepReport(step, report, tasks_per_step / (now - since)))
        sound_so_far, since = state, time.perf_counter()
        if should_stop():
            break
    if sound_so_far is not None:
        on_state(sound_so_far)
    return state


@eqx.filter_jit
def update(
    state: TrainState,
    batch: TaskBatch,
    key: PRNGKeyArray,
    optimiser: optax.GradientTransformation,
    augmentation: AbstractAugmentation | None,
    scaling: PixelScaling | None = None,
    mesh: Mesh | None = None,
    examples: Num[Array, "example ..."] | None = None,
) -> tuple[TrainState, dict[str, Array], Bool[Array, ""]]:
    """Return the state after one update on a batch of tasks, what is nice to know of it, and whether all is finite.

    - `examples`: those that the batch has positions of, where they are on the device; `None` where it has examples.
    """
    if examples is not None:
        batch = look_up(batch, examples)
    augmentation_key, adaptation_key = jax.random.split(key)
    episodes = to_episodes(batch, augmentation, augmentation_key, scaling)
    parameters, fixed = eqx.partition(state.learner, eqx.is_inexact_array)

    def loss_of(parameters: Any) -> Any:
        learner = eqx.combine(parameters, fixed)
        step_key = jax.random.fold_in(adaptation_key, state.step)
        return meta_loss(learner, episodes, state.statistics, Normalisation.BATCH, step_key, mesh)

    (loss, (statistics, info)), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser_state, parameters)
    learner = eqx.combine(eqx.apply_updates(parameters, updates), fixed)
    values = {
        "loss": loss,
        "accuracy": info.accuracy,
        "gradient_norm": optax.tree.norm(gradient),
        "dropped_tasks": info.dropped,
        "solver_steps": info.solver_steps,
        **state.learner.scalars(),
    }
    new = TrainState(learner, statistics, optimiser_state, state.step + 1)
    if mesh is not None:
        new = eqx.filter_shard(new, NamedSharding(mesh, PartitionSpec()))
    numbers = [x for x in jax.tree.leaves((loss, gradient, new)) if eqx.is_inexact_array(x)]
    return new, values, jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in numbers]))
