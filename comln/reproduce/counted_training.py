"""Train an experiment for its number of updates, keep a trace of it, and test it on fixed tasks; once for each seed.

A number of updates, unlike a time, gives the same result on a machine that does other work.
"""

__all__ = ["Cell", "Exam", "Progress", "TrainedCell", "TrainedRun", "described", "train_cell"]

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from comln.backbones import Normalisation
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split, content_hash
from comln.evaluate import evaluate
from comln.flow.integrator import Integrator
from comln.learners import AbstractLearner
from comln.meta_train import Divergence, StepReport, TrainState, meta_train, start_training
from comln.metrics import keep_until, read_lines
from comln.recipes.experiment import Experiment
from comln.reproduce.measure import numerics
from comln.reproduce.workspace import Workspace
from comln.run import RunFolder, converter
from comln.selection import Selection
from comln.training import Trained, train_run

TEST_SEED = 0
Progress = Callable[[str, float], None]
"""Called with what is being done, and the share that is done."""


@dataclass(frozen=True)
class Exam:
    """Tasks of unseen classes that a trained learner is tested on.

    - `shape`: of the tasks, which are numbers 0 to n - 1 of one seed: the same ones for all learners.
    - `integrator`: of the flow, for learners that follow one, in place of that of training.
    """

    shape: EpisodeShape
    integrator: Integrator | None = None


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is trained, for how many seeds, and what it is tested on.

    - `name`: of its parts, and for people who follow the progress.
    - `experiment`: what is trained, for its number of updates.
    - `seeds`: of initial weights and training tasks.
    - `tests`: by name.
    - `tasks`: of each test.
    - `integrator`: of the flow, for learners that follow one; `None` for the learner's own.
    - `look_every`: updates between looks at the accuracy on validation tasks (0: none). Nothing depends on them.
    - `look_tasks`: how many those are.
    """

    name: str
    experiment: Experiment
    seeds: tuple[int, ...]
    tests: Mapping[str, Exam]
    tasks: int
    integrator: Integrator | None = None
    look_every: int = 0
    look_tasks: int = 100


@dataclass(frozen=True)
class TrainedRun:
    """What came of one seed.

    - `accuracies`, `failed`: by test, the accuracy on each task, and the number of tasks that could not be adapted to.
    - `horizons`, `solver_steps`: T before each update, and the inner or solver steps of its longest task; none of T
      for learners without a horizon.
    - `looks`: accuracies on validation tasks during training, each with the number of updates made.
    - `scalars`: meta-learned numbers after training.
    - `update_s`: median time of an update. It is that of a machine which may have done other work.
    - `diverged`: why training could not go on; nothing was tested then. `None` where it came to its end.
    """

    accuracies: dict[str, tuple[float, ...]]
    failed: dict[str, int]
    horizons: tuple[float, ...]
    solver_steps: tuple[int, ...]
    looks: tuple[tuple[int, float], ...]
    scalars: dict[str, float]
    update_s: float
    diverged: str | None = None


@dataclass(frozen=True)
class TrainedCell:
    """A cell and what came of each seed."""

    cell: Cell
    runs: tuple[TrainedRun, ...]

    def accuracies(self, test: str) -> np.ndarray | None:
        """Return the accuracies of a test, shape `(seed, task)`; `None` where the training of a seed diverged."""
        if any(run.diverged for run in self.runs):
            return None
        return np.array([run.accuracies[test] for run in self.runs])


def train_cell(work: Workspace, cell: Cell, splits: Mapping[str, Split], on_progress: Progress) -> TrainedCell:
    """Train and test each seed that is not there yet."""
    experiment = cell.experiment
    runs = []
    for number, seed in enumerate(cell.seeds):
        configuration = {
            "experiment": described(experiment),
            "integrator": _plain(cell.integrator),
            "default integrator": _plain(Integrator()),
            "tests": {name: _plain(test) for name, test in cell.tests.items()},
            "tasks": cell.tasks,
            "looks": [cell.look_every, cell.look_tasks],
            "seed": seed,
            "data_hash": content_hash(splits),
        }
        part = work.kept(
            f"{cell.name}-seed{seed}",
            configuration,
            functools.partial(_train, work, cell, seed, splits, configuration, _share(on_progress, number, cell)),
        )
        runs.append(converter.structure(part, TrainedRun))
    return TrainedCell(cell, tuple(runs))


def described(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as JSON can hold it, without the place of its data, of which a hash tells more."""
    whole = converter.unstructure(experiment)
    return {**whole, "data": {name: value for name, value in whole["data"].items() if name != "folder"}}


def _plain(value: Any) -> Any:
    """Return an integrator, or what holds one, as JSON can hold it: with the name of its method."""
    if isinstance(value, Integrator):
        return {**asdict(value), "method": [type(value.method).__name__, asdict(value.method)]}
    if isinstance(value, Exam):
        return {"shape": asdict(value.shape), "integrator": _plain(value.integrator)}
    return value


def _share(on_progress: Progress, number: int, cell: Cell) -> Progress:
    def say(what: str, done: float) -> None:
        of_seeds = f", seed {number + 1} of {len(cell.seeds)}" if len(cell.seeds) > 1 else ""
        on_progress(f"{cell.name}{of_seeds}: {what}", (number + done) / len(cell.seeds))

    return say


def _begin(cell: Cell, seed: int) -> AbstractLearner:
    return _with_integrator(cell.experiment.build(seed), cell.integrator)


def _with_integrator(learner: Any, integrator: Integrator | None) -> AbstractLearner:
    return learner if integrator is None else dataclasses.replace(learner, integrator=integrator)


def _train(
    work: Workspace,
    cell: Cell,
    seed: int,
    splits: Mapping[str, Split],
    configuration: Mapping[str, Any],
    on_progress: Progress,
) -> dict[str, Any]:
    on_progress("compiling", 0.0)
    lines: list[dict[str, float | int]] = []
    try:
        if cell.experiment.validate_every:
            state = _train_in_folder(work, cell, seed, splits, configuration, lines, on_progress)
        else:
            state = _train_at_once(cell, seed, splits, lines, on_progress)
    except Divergence as error:
        return converter.unstructure(TrainedRun({}, {}, *_trace(lines), {}, _update_s(lines), str(error)))
    accuracies, failed = {}, {}
    for name, test in cell.tests.items():
        on_progress(f"testing, {name}", 0.9)
        learner = _with_integrator(cell.experiment.at_test(state.learner), test.integrator)
        sampler = Sampler(splits["test"], test.shape)
        found = evaluate(learner, state.statistics, sampler, cell.tasks, TEST_SEED, cell.experiment.normalisation)
        accuracies[name], failed[name] = tuple(round(float(x), 5) for x in found.accuracies), found.failed
    scalars = {name: float(value) for name, value in state.learner.scalars().items()}
    return converter.unstructure(TrainedRun(accuracies, failed, *_trace(lines), scalars, _update_s(lines)))


def _trace(lines: Sequence[Mapping[str, float | int]]) -> tuple[Any, Any, Any]:
    updates = [line for line in lines if "loss" in line]
    looks = [line for line in lines if "validation_accuracy" in line]
    return (
        tuple(float(f"{line['horizon']:.4g}") for line in updates if "horizon" in line),
        tuple(int(line["solver_steps"]) for line in updates),
        tuple((int(line["step"]), round(float(line["validation_accuracy"]), 5)) for line in looks),
    )


def _update_s(lines: Sequence[Mapping[str, float | int]]) -> float:
    spent = [float(line["seconds"]) for line in lines if "seconds" in line]
    return round(float(np.median(spent)), 5) if spent else 0.0


def _say_update(cell: Cell, on_progress: Progress, report: StepReport) -> None:
    steps = cell.experiment.steps
    on_progress(f"update {report.step} of {steps}, loss {report.values['loss']:.2f}", 0.9 * report.step / steps)


def _train_at_once(
    cell: Cell,
    seed: int,
    splits: Mapping[str, Split],
    lines: list[dict[str, float | int]],
    on_progress: Progress,
) -> TrainState:
    """Train without checkpoints; the last state counts. For trainings of minutes."""
    experiment = cell.experiment
    look = Sampler(splits["val"], experiment.test) if cell.look_every else None

    def on_step(report: StepReport) -> None:
        _say_update(cell, on_progress, report)
        seconds = experiment.tasks_per_step / report.tasks_per_second
        lines.append({"step": report.step, **report.values, "seconds": seconds})

    def on_state(state: TrainState) -> None:
        step = int(state.step)
        if look is not None and (step % cell.look_every == 0 or step == experiment.steps):
            accuracy = _look(cell, state, look)
            lines.append({"step": step, "validation_accuracy": accuracy})

    learner = _begin(cell, seed)
    optimiser = experiment.optimiser.build(learner, experiment.steps)
    return meta_train(
        start_training(learner, optimiser),
        optimiser,
        [Sampler(splits["train"], shape) for shape in experiment.train_shapes()],
        steps=experiment.steps,
        tasks_per_step=experiment.tasks_per_step,
        seed=seed,
        on_step=on_step,
        on_state=on_state,
    )


def _look(cell: Cell, state: TrainState, sampler: Sampler) -> float:
    learner = cell.experiment.at_test(state.learner)
    normalisation: Normalisation = cell.experiment.normalisation
    return evaluate(learner, state.statistics, sampler, cell.look_tasks, TEST_SEED, normalisation).mean


def _train_in_folder(
    work: Workspace,
    cell: Cell,
    seed: int,
    splits: Mapping[str, Split],
    configuration: Mapping[str, Any],
    lines: list[dict[str, float | int]],
    on_progress: Progress,
) -> TrainState:
    """Train with checkpoints, and return the best state by validation. For trainings of hours."""
    experiment = cell.experiment
    text = json.dumps([configuration, numerics()], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    folder = RunFolder(work.folder / f"{cell.name}-seed{seed}-{digest}")
    learner = _begin(cell, seed)
    state = start_training(learner, experiment.optimiser.build(learner, experiment.steps))
    selection, restored = Selection(), None
    if folder.holds_run():
        restored = folder.restore_newest(state)
    else:
        folder.start(experiment, cell.name, "reproduction", seed, content_hash(splits), "comln reproduce")
    if restored is not None:
        state, selection = restored
    keep_until(folder.path, int(state.step))
    more = int(state.step) < experiment.steps and not selection.is_exhausted(experiment.patience)
    trained = train_run(
        experiment,
        seed,
        Trained(state, selection, more),
        [Sampler(splits["train"], shape) for shape in experiment.train_shapes()],
        Sampler(splits["val"], experiment.test),
        folder,
        on_step=functools.partial(_say_update, cell, on_progress),
    )
    lines.extend(_with_seconds(read_lines(folder.path), experiment.tasks_per_step))
    return folder.best(trained.state, trained.selection)


def _with_seconds(lines: Iterator[dict[str, float | int]], tasks_per_step: int) -> Iterator[dict[str, float | int]]:
    for line in lines:
        rate = line.get("tasks_per_second")
        yield line if rate is None else {**line, "seconds": tasks_per_step / rate}
