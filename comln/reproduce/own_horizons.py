"""One T for all tasks, one for each by statistics of its support, and the best of each. For the task-horizon page."""

__all__ = ["HORIZONS", "KINDS", "SEEDS", "Kind", "KindRow", "TaskHorizonResult", "compute"]

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from comln.backbones import Identity, Normalisation
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split, content_hash
from comln.episode import Episode, Examples
from comln.episodic import query_accuracy
from comln.evaluate import embedded_tasks, mean_and_ci95
from comln.flow.gradient_flow_path import gradient_flow_path
from comln.learners import COMLN, InitialHead, Outcome, TaskHorizon
from comln.learners.base import mean_loss
from comln.recipes import find
from comln.recipes.experiment import Experiment
from comln.recipes.learners import COMLNConfig
from comln.reproduce.counted_training import described
from comln.reproduce.measure import processor
from comln.reproduce.timed_training import train_for
from comln.reproduce.workspace import Budget, Workspace
from comln.typing import Array, Scalar

SEEDS = (0, 1, 2)
"""Of the training of the horizons."""

TASKS_OF_AN_UPDATE = 8
HORIZONS = np.geomspace(0.1, 1e3, 25)
"""Among which the best of a task is looked for."""


@dataclass(frozen=True)
class Kind:
    """Tasks of one difficulty: their shape, and the share of support labels that are replaced by wrong ones."""

    ways: int
    shots: int
    noise: float

    def __str__(self) -> str:
        noise = f", {100 * self.noise:.0f} % of labels wrong" if self.noise else ""
        return f"{self.ways}-way {self.shots}-shot{noise}"


KINDS = tuple(Kind(ways, shots, noise) for ways in (5, 20) for shots in (1, 5, 10) for noise in (0.0, 0.3))
"""What the committed budget compares on."""


@dataclass(frozen=True)
class Spending:
    """What a budget buys: training of the network, updates of the horizons, and tasks of each kind for both."""

    seconds: float
    updates: int
    tasks: int
    filters: int
    kinds: tuple[Kind, ...] = KINDS


SPENDING = {
    Budget.SMOKE: Spending(2.0, 20, 50, 8, KINDS[:4]),
    Budget.COMMITTED: Spending(60.0, 600, 200, 32),
    Budget.FULL: Spending(1200.0, 5000, 1000, 64),
}


@dataclass(frozen=True)
class KindRow:
    """Results on the test tasks of one kind, or of all; pairs are a mean and the half-width of its 95 % interval.

    - `shared`, `own`: accuracy with one T for all tasks, and with one for each.
    - `oracle`: accuracy with the T of `HORIZONS` that has the least query loss, which nobody can know. No other T of
      the grid has less loss; its accuracy may be exceeded.
    - `difference`: `own` minus `shared`, task by task.
    - `shared_loss`, `own_loss`, `oracle_loss`: mean query losses.
    - `loss_difference`: `own_loss` minus `shared_loss`, task by task.
    - `own_horizon`, `oracle_horizon`: geometric means.
    """

    kind: str
    shared: tuple[float, float]
    own: tuple[float, float]
    oracle: tuple[float, float]
    difference: tuple[float, float]
    shared_loss: float
    own_loss: float
    oracle_loss: float
    loss_difference: tuple[float, float]
    own_horizon: float
    oracle_horizon: float


@dataclass(frozen=True)
class TaskHorizonResult:
    """All kinds, and all of them together.

    - `shared_horizons`: the learned T for all tasks, one for each seed of its training.
    - `updates`: of the network, which is trained for a time.
    - `rows`: of each kind; the last is of all.
    """

    budget: Budget
    spending: Spending
    shared_horizons: tuple[float, ...]
    updates: int
    rows: tuple[KindRow, ...]
    environment: dict[str, Any]


def compute(work: Workspace) -> TaskHorizonResult:
    """Train a network on a mixture of tasks, then the horizons on embeddings of other classes, and compare."""
    spending = SPENDING[work.budget]
    experiment = _experiment(spending)
    splits = experiment.data.load()
    configuration = {
        "experiment": described(experiment),
        "spending": asdict(spending),
        "seeds": SEEDS,
        # The network is trained for a time.
        "cores": os.cpu_count(),
        "processor": processor(),
        "data_hash": content_hash(splits),
    }
    part = work.kept("comparison", configuration, functools.partial(_compare, experiment, splits, spending, work))
    rows = tuple(KindRow(**{name: _tuple(value) for name, value in row.items()}) for row in part["rows"])
    return TaskHorizonResult(
        budget=work.budget,
        spending=spending,
        shared_horizons=tuple(part["shared_horizons"]),
        updates=part["updates"],
        rows=rows,
        environment=work.environment(),
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _experiment(spending: Spending) -> Experiment:
    """Return the experiment that the network comes from: tasks of all shapes, with right labels."""
    house = find("glyphs-5way-5shot", "comln", "house")
    shapes = tuple(dict.fromkeys(EpisodeShape(kind.ways, kind.shots, 5) for kind in spending.kinds))
    return dataclasses.replace(
        house,
        learner=COMLNConfig(initial_head=InitialHead.ZERO),
        backbone=dataclasses.replace(house.backbone, filters=spending.filters),
        train=shapes[0],
        train_mixture=shapes,
        tasks_per_step=4,
    )


def _compare(experiment: Experiment, splits: dict[str, Split], spending: Spending, work: Workspace) -> dict[str, Any]:
    trained = train_for(
        experiment, splits, spending.seconds, 50, 0, lambda what: work.on_progress(f"network: {what}", 0.1)
    )
    backbone, statistics = trained.state.learner.backbone, trained.state.statistics

    def embedded(split: str, seed: int) -> dict[Kind, Episode]:
        return {
            kind: _with_noise(
                _tasks(backbone, statistics, splits[split], kind, spending.tasks, seed), kind.noise, (seed, number)
            )
            for number, kind in enumerate(spending.kinds)
        }

    work.on_progress("embedding tasks", 0.4)
    for_training, for_test = embedded("val", 1), embedded("test", 0)
    shared_start = COMLN.init(
        Identity(backbone.embedding_size), 5, jax.random.key(0), 10.0, initial_head=InitialHead.ZERO
    )
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, spending.updates))
    outcomes: dict[str, list[dict[Kind, Measured]]] = {"shared": [], "own": []}
    for number, (seed, name) in enumerate((seed, name) for seed in SEEDS for name in outcomes):
        factor = TaskHorizon.init(jax.random.key(seed)) if name == "own" else None
        start = dataclasses.replace(shared_start, task_horizon=factor)
        begun = 0.5 + 0.4 * number / (2 * len(SEEDS))

        def on_update(done: int, name: str = name, seed: int = seed, begun: float = begun) -> None:
            share = done / spending.updates
            work.on_progress(
                f"horizons: {name}, seed {seed}, update {done} of {spending.updates}",
                begun + 0.4 * share / (2 * len(SEEDS)),
            )

        learner = _learn_horizons(start, for_training, spending.updates, seed, optimiser, on_update)
        outcomes[name].append({kind: _measure(learner, tasks) for kind, tasks in for_test.items()})
    oracle = {}
    for number, (kind, tasks) in enumerate(for_test.items()):
        work.on_progress(f"the best horizon of each task: {kind}", 0.9 + 0.1 * number / len(spending.kinds))
        oracle[kind] = _best(tasks)
    kinds = list(for_test)
    averaged = {
        name: {kind: _average([run[kind] for run in runs]) for kind in kinds} for name, runs in outcomes.items()
    }
    groups = [(str(kind), [kind]) for kind in kinds] + [("all", kinds)]
    rows = [
        _row(
            name,
            *(_join([measured[kind] for kind in group]) for measured in (averaged["shared"], averaged["own"], oracle)),
        )
        for name, group in groups
    ]
    shared = [float(run[kinds[0]].horizons[0]) for run in outcomes["shared"]]
    return {"shared_horizons": shared, "updates": trained.experiment.steps, "rows": [asdict(row) for row in rows]}


def _tasks(backbone: Any, statistics: Any, split: Split, kind: Kind, count: int, seed: int) -> Episode:
    sampler = Sampler(split, EpisodeShape(kind.ways, kind.shots, 10))
    batches = list(embedded_tasks(backbone, statistics, sampler, count, seed, Normalisation.RUNNING))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[:count], *batches)


def _with_noise(tasks: Episode, noise: float, seed: tuple[int, ...]) -> Episode:
    """Return the tasks with this share of the support labels replaced by other classes, drawn at random."""
    rng, labels = np.random.default_rng(seed), np.asarray(tasks.support.labels)
    ways = labels.shape[-1]
    shift = rng.integers(1, ways, labels.shape[:2]) * (rng.random(labels.shape[:2]) < noise)
    wrong = np.eye(ways, dtype=labels.dtype)[(labels.argmax(axis=-1) + shift) % ways]
    return Episode(Examples(tasks.support.inputs, jnp.asarray(wrong), tasks.support.mask), tasks.query)


def _learn_horizons(
    learner: COMLN,
    tasks: dict[Kind, Episode],
    updates: int,
    seed: int,
    optimiser: optax.GradientTransformation,
    on_update: Callable[[int], None],
) -> COMLN:
    """Return the learner after updates of its horizon, each on tasks of one kind; everything else is fixed."""
    trainable = eqx.tree_at(
        lambda m: (m.log_horizon, m.task_horizon),
        jax.tree.map(lambda _: False, learner),
        (True, jax.tree.map(eqx.is_inexact_array, learner.task_horizon)),
        is_leaf=lambda node: node is None,
    )
    parameters, fixed = eqx.partition(learner, trainable)
    state, rng = optimiser.init(parameters), np.random.default_rng(seed)
    kinds = list(tasks)
    count = len(tasks[kinds[0]].support.mask)
    for update in range(updates):
        on_update(update)
        kind = kinds[rng.integers(len(kinds))]
        chosen = rng.choice(count, min(TASKS_OF_AN_UPDATE, count), replace=False)
        batch = jax.tree.map(lambda x, chosen=chosen: x[chosen], tasks[kind])
        parameters, state = _update(parameters, fixed, state, batch, optimiser)
    return eqx.combine(parameters, fixed)


# These are compiled once for all runs and seeds, so what differs between those is an argument.


@eqx.filter_jit
def _update(
    parameters: Any, fixed: Any, state: Any, batch: Episode, optimiser: optax.GradientTransformation
) -> tuple[Any, Any]:
    def loss(parameters: Any) -> Scalar:
        return jnp.mean(jax.vmap(lambda task: eqx.combine(parameters, fixed).objective(task)[0])(batch))

    changes, new = optimiser.update(jax.grad(loss)(parameters), state)
    return eqx.apply_updates(parameters, changes), new


@eqx.filter_jit
def _scores(learner: COMLN, tasks: Episode) -> tuple[Array, Array, Array]:
    return jax.vmap(lambda task: _score(learner, task))(tasks)


@dataclass(frozen=True)
class Measured:
    """Accuracy, query loss and horizon of some tasks."""

    accuracies: np.ndarray
    losses: np.ndarray
    horizons: np.ndarray


def _measure(learner: COMLN, tasks: Episode) -> Measured:
    return Measured(*map(np.asarray, _scores(learner, tasks)))


def _best(tasks: Episode) -> Measured:
    """Return what each task has at the horizon, among `HORIZONS`, of the least query loss: from one solve a task."""
    horizons = jnp.asarray(HORIZONS, jnp.result_type(float))

    def along(task: Episode) -> tuple[Array, Array]:
        support, query = task.support, task.query
        start = jnp.zeros((support.labels.shape[1], support.inputs.shape[1]), support.inputs.dtype)
        path = gradient_flow_path(start, support.inputs, support.labels, horizons[-1], mask=support.mask)

        def at(logits: Array) -> tuple[Scalar, Scalar]:
            return query_accuracy(Outcome(logits, jnp.array(True), path.info.steps), query), mean_loss(logits, query)

        return jax.vmap(at)(path.logits_at(query.inputs, horizons))

    accuracies, losses = (np.asarray(x) for x in eqx.filter_jit(lambda tasks: jax.lax.map(along, tasks))(tasks))
    best = losses.argmin(axis=1)
    rows = np.arange(len(best))
    return Measured(accuracies[rows, best], losses[rows, best], HORIZONS[best])


def _score(learner: COMLN, task: Episode) -> tuple[Scalar, Scalar, Scalar]:
    outcome = learner.classify(task)
    return query_accuracy(outcome, task.query), mean_loss(outcome.logits, task.query), learner.horizon_for(task.support)


def _average(runs: Sequence[Measured]) -> Measured:
    """Return the mean over runs of each task's numbers; of horizons, the geometric one."""
    return Measured(
        np.mean([run.accuracies for run in runs], axis=0),
        np.mean([run.losses for run in runs], axis=0),
        np.exp(np.mean([np.log(run.horizons) for run in runs], axis=0)),
    )


def _join(parts: Sequence[Measured]) -> Measured:
    return Measured(
        np.concatenate([part.accuracies for part in parts]),
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.horizons for part in parts]),
    )


def _row(kind: str, shared: Measured, own: Measured, oracle: Measured) -> KindRow:
    return KindRow(
        kind,
        mean_and_ci95(shared.accuracies),
        mean_and_ci95(own.accuracies),
        mean_and_ci95(oracle.accuracies),
        mean_and_ci95(own.accuracies - shared.accuracies),
        float(np.mean(shared.losses)),
        float(np.mean(own.losses)),
        float(np.mean(oracle.losses)),
        mean_and_ci95(own.losses - shared.losses),
        float(np.exp(np.mean(np.log(own.horizons)))),
        float(np.exp(np.mean(np.log(oracle.horizons)))),
    )
