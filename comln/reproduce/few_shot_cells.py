"""What Tables 2 and 4 and Figure 5 train, by data set and budget; what they have in common is trained once."""

__all__ = [
    "DATA",
    "EULER",
    "OTHER_SOLVER",
    "Spending",
    "cell_of",
    "how_to_read",
    "load",
    "run_cells",
    "spending_of",
    "title_of",
]

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.source import Split
from comln.flow.integrator import Euler, Integrator
from comln.optimiser import Adam
from comln.recipes import find
from comln.recipes.backbones import Conv4Config
from comln.recipes.experiment import Experiment
from comln.recipes.learners import COMLNConfig
from comln.reproduce.counted_training import Cell, Exam, TrainedCell, train_cell
from comln.reproduce.workspace import Budget, Workspace

DATA = ("glyphs", "mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100", "cub", "omniglot")
"""Data sets of images that these results can be computed on."""

EULER = Integrator.euler(step=0.1)
"""Gradient descent with steps of this length, where Euler's method stands for it."""

OTHER_SOLVER = "other solver"
"""The test in which COMLN's flow is followed by Euler steps after training by Runge-Kutta's, or the reverse."""

LOOKS = 10


@dataclass(frozen=True)
class Spending:
    """What a budget buys.

    - `updates`: of each training; `None` for those of the recipe.
    - `tasks`: of each test.
    - `filters`: channels of the network.
    - `seeds`: of each training.
    - `shots`: of test tasks.
    - `protocol`: by which the recipe is set.
    """

    updates: int | None
    tasks: int
    filters: int
    seeds: tuple[int, ...]
    shots: tuple[int, ...] = (1, 5)
    protocol: str = "house"


ON_GLYPHS = {
    Budget.SMOKE: Spending(4, 20, 8, (0,), (1,)),
    Budget.COMMITTED: Spending(160, 300, 32, (0, 1, 2)),
    Budget.FULL: Spending(5000, 1000, 64, (0, 1, 2)),
}
ON_PREPARED = {
    Budget.SMOKE: Spending(4, 20, 8, (0,), (1,)),
    Budget.COMMITTED: Spending(6000, 1000, 64, (0,), protocol="paper"),
    Budget.FULL: Spending(None, 1000, 64, (0, 1, 2), protocol="paper"),
}


def spending_of(work: Workspace) -> Spending:
    """Return what the budget buys on this data set."""
    return (ON_GLYPHS if work.data == "glyphs" else ON_PREPARED)[work.budget]


def _experiment(work: Workspace, learner: str, ways: int, shots: int, protocol: str) -> Experiment:
    """Return the recipe on this data set, as the budget has it."""
    spending = spending_of(work)
    experiment = find(f"{work.data}-{ways}way-{shots}shot", learner, protocol)
    data = experiment.data
    if isinstance(data, PreparedData | PreparedEmbeddings):
        data = dataclasses.replace(data, folder=work.root)
    backbone = experiment.backbone
    if isinstance(backbone, Conv4Config):
        backbone = dataclasses.replace(backbone, filters=spending.filters)
    steps = spending.updates or experiment.steps
    # A short training is validated as often as a long one.
    every = experiment.validate_every and max(1, experiment.validate_every * steps // experiment.steps)
    validation_tasks = min(experiment.validation_tasks, 10 * spending.tasks)
    return dataclasses.replace(
        experiment,
        data=data,
        backbone=backbone,
        steps=steps,
        validate_every=every,
        validation_tasks=validation_tasks,
    )


def load(work: Workspace) -> dict[str, Split]:
    """Return the splits of the data set.

    **Raises:** `DataError` where it is not prepared.
    """
    return _experiment(work, "comln", 5, 1, "house").data.load()


def cell_of(
    work: Workspace,
    learner: str,
    shots: int,
    *,
    ways: int = 5,
    training_shots: int | None = None,
    horizon: float | None = None,
    horizon_rate: float | None = None,
    integrator: Integrator | None = None,
    variant: str = "",
) -> Cell:
    """Return what trains a learner for tasks of so many shots.

    - `training_shots`: other shots in training than at test; it is tested on tasks of all shots then.
    - `horizon`, `horizon_rate`: of COMLN, T before training, and the largest step of log T (0: T is fixed); the
      recipe's where they are `None`.
    - `integrator`: of COMLN's flow, if not the default.
    - `variant`: what tells it from others with this learner and these shots, in its name.
    """
    spending = spending_of(work)
    # The rate of the horizon is its own in the house protocol alone.
    protocol = spending.protocol if horizon_rate is None else "house"
    experiment = _experiment(work, learner, ways, shots, protocol)
    tests = {f"{shots}-shot": Exam(experiment.test)}
    if training_shots is not None:
        train = dataclasses.replace(experiment.train, shots=training_shots)
        experiment = dataclasses.replace(experiment, train=train, train_mixture=())
        tests = {f"{k}-shot": Exam(EpisodeShape(ways, k, experiment.test.queries)) for k in spending.shots}
    config = experiment.learner
    looks = 0
    if isinstance(config, COMLNConfig):
        looks = max(1, experiment.steps // LOOKS) if not experiment.validate_every else 0
        if horizon is None:
            by_euler = integrator is not None and isinstance(integrator.method, Euler)
            tests[OTHER_SOLVER] = Exam(experiment.test, Integrator() if by_euler else EULER)
        else:
            experiment = dataclasses.replace(experiment, learner=dataclasses.replace(config, initial_horizon=horizon))
        if horizon_rate is not None and isinstance(experiment.optimiser, Adam):
            optimiser = dataclasses.replace(experiment.optimiser, horizon_learning_rate=horizon_rate)
            experiment = dataclasses.replace(experiment, optimiser=optimiser)
    name = "-".join(filter(None, (f"{work.data}-{ways}way-{shots}shot", learner, variant)))
    return Cell(
        name=name,
        experiment=experiment,
        seeds=spending.seeds,
        tests=tests,
        tasks=spending.tasks,
        integrator=integrator,
        look_every=looks,
        look_tasks=min(100, spending.tasks),
    )


def run_cells(work: Workspace, cells: Sequence[Cell]) -> list[TrainedCell]:
    """Train what is not there yet, one cell after the other."""
    splits = load(work)
    return [
        train_cell(work, cell, splits, functools.partial(_of_all, work, number, len(cells)))
        for number, cell in enumerate(cells)
    ]


def _of_all(work: Workspace, number: int, count: int, what: str, done: float) -> None:
    work.on_progress(what, (number + done) / count)


def title_of(result: str, data: str) -> str:
    """Return the title of a result: what it is, and on what data.

    >>> title_of("Table 2", "glyphs")
    'Table 2 on glyphs, a stand-in for the data of the paper'
    """
    return f"{result} on {data}" + (", a stand-in for the data of the paper" if data == "glyphs" else "")


def how_to_read(data: str, budget: Budget) -> str:
    """Return what to know before numbers of the paper are read beside ours, and before any are at the least budget."""
    note = "A number agrees with that of the paper where their 95 % intervals overlap."
    if data == "glyphs":
        note = (
            "The numbers of the paper are of photographs, which are far harder than characters: what can be compared "
            "is the order of the methods, not their accuracy."
        )
    if budget is Budget.SMOKE:
        note += " The smoke budget shows that all this works; after so few updates the verdicts mean nothing."
    return note
