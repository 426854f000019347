"""Train an experiment for a wall-clock time, evaluate it on fixed tasks, and measure what both cost."""

__all__ = ["TrainedForTime", "train_for"]

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from comln.data.batches import make_batch
from comln.data.prefetch import prefetch
from comln.data.sampling import Sampler
from comln.data.source import Split
from comln.evaluate import TASKS_AT_ONCE, Evaluation, evaluate
from comln.meta_train import StepReport, TrainState, meta_train, start_training, update
from comln.recipes.experiment import Experiment
from comln.reproduce.measure import temporary_bytes

TEST_SEED = 0
TRIAL_SECONDS, TRIAL_STEPS = 4.0, (4, 30)


@dataclass(frozen=True)
class TrainedForTime:
    """What came of it.

    - `experiment`: what was trained, with the number of updates that fitted into the time.
    - `state`: the trained learner.
    - `training_s`: time that all updates but the first took; the first one compiles.
    - `temporary_bytes`: the compiler's figure for the memory of an update besides its arguments and results.
    - `evaluation`: on the test tasks.
    - `test_ms`: time for each test task, embedding included, compilation not.
    """

    experiment: Experiment
    state: TrainState
    training_s: float
    temporary_bytes: int
    evaluation: Evaluation
    test_ms: float


def train_for(
    experiment: Experiment,
    splits: Mapping[str, Split],
    seconds: float,
    tasks: int,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda what: None,
) -> TrainedForTime:
    """Train for about `seconds` of updates, compilation not counted, and evaluate on `tasks` tasks of the test split.

    The number of updates is fixed beforehand from the time of a few, so that schedules come to their end.

    - `on_progress`: called with what is being done.
    """
    on_progress("compiling")
    samplers = [Sampler(splits["train"], shape) for shape in experiment.train_shapes()]
    step_s, memory = _try_updates(experiment, samplers, seed, min(seconds, TRIAL_SECONDS))
    experiment = dataclasses.replace(experiment, steps=max(2, int(seconds / step_s)))
    learner = experiment.build(seed)
    optimiser = experiment.optimiser.build(learner, experiment.steps)
    began = time.perf_counter()

    def on_step(report: StepReport) -> None:
        nonlocal began
        if report.step == 1:
            began = time.perf_counter()
        on_progress(f"update {report.step} of {experiment.steps}, loss {report.values['loss']:.2f}")

    state = meta_train(
        start_training(learner, optimiser),
        optimiser,
        samplers,
        steps=experiment.steps,
        tasks_per_step=experiment.tasks_per_step,
        seed=seed,
        on_step=on_step,
    )
    training_s = time.perf_counter() - began
    on_progress("evaluating")
    arguments = experiment.at_test(state.learner), state.statistics, Sampler(splits["test"], experiment.test)
    evaluate(*arguments, TASKS_AT_ONCE, TEST_SEED, experiment.normalisation)
    began = time.perf_counter()
    evaluation = evaluate(*arguments, tasks, TEST_SEED, experiment.normalisation)
    test_ms = 1e3 * (time.perf_counter() - began) / tasks
    return TrainedForTime(experiment, state, training_s, memory, evaluation, test_ms)


def _try_updates(experiment: Experiment, samplers: list[Sampler], seed: int, seconds: float) -> tuple[float, int]:
    """Return the seconds that an update takes, its tasks at hand, and its temporary memory.

    - `seconds`: how long to try.
    """
    learner = experiment.build(seed)
    optimiser = experiment.optimiser.build(learner, experiment.steps)
    state, key, count = start_training(learner, optimiser), jax.random.key(seed), experiment.tasks_per_step
    batches = prefetch(
        lambda step: make_batch(samplers[step % len(samplers)], seed, range(step * count, (step + 1) * count)),
        0,
        TRIAL_STEPS[1],
    )
    split = samplers[0].split
    spent: list[float] = []
    memory, programs = 0, {}
    for batch in batches:
        shape = batch.support.shape
        if shape not in programs:
            jitted: Any = update
            programs[shape] = jitted.lower(state, batch, key, optimiser, split.augmentation, split.scaling).compile()
            memory = max(memory, temporary_bytes(programs[shape].compiled))
        began = time.perf_counter()
        state, _, finite = programs[shape](state, batch, key, optimiser, split.augmentation, split.scaling)
        jax.block_until_ready(finite)
        spent.append(time.perf_counter() - began)
        if len(spent) > max(TRIAL_STEPS[0], len(samplers)) and sum(spent) > seconds:
            break
    batches.close()
    return float(np.median(spent[1:])), memory
