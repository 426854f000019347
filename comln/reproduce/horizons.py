"""A learned T against fixed ones: T in meta-training, accuracy, solver steps, time to accuracy. For Figure 5."""

__all__ = ["AS_IN_TABLE_2", "FROM_SMALL", "Figure5", "HorizonRow", "compute"]

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from comln.reproduce.counted_training import TrainedCell, described
from comln.reproduce.few_shot_cells import cell_of, load, run_cells, spending_of
from comln.reproduce.measure import processor
from comln.reproduce.scores import Score, difference, score
from comln.reproduce.update_times import UpdateCost, update_cost
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter

FIXED = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Horizons that are not learned."""

START, RATE = 1.0, 0.1
"""Where T starts if it is learned as in the paper, small, and the largest step of log T, which is the paper's."""

MANY_WAYS = 20
REACHED = 0.95
"""The time to accuracy is that to this share of the accuracy that a learned T comes to."""


@dataclass(frozen=True)
class HorizonRow:
    """Training with one way to have a T, on tasks of one kind.

    - `name`: which.
    - `ways`, `shots`: of the tasks.
    - `fixed`: the horizon that is not learned; `None` where it is.
    - `horizons`: T before each update, of each seed.
    - `solver_steps`: of the longest task of each update, of each seed.
    - `looks`: numbers of updates after which validation tasks were looked at.
    - `validation`: the accuracy on them, of each seed.
    - `accuracy`: on test tasks, after training; `None` where training diverged.
    - `difference`: of a fixed T, that minus the accuracy with the T that is learned from a small start.
    - `seconds`: of all updates, in the mean over seeds.
    - `updates_to_accuracy`, `steps_to_accuracy`, `seconds_to_accuracy`: until the mean accuracy on validation tasks of
      all seeds first reached the accuracy wanted; `None` where it never did.
    """

    name: str
    ways: int
    shots: int
    fixed: float | None
    horizons: tuple[tuple[float, ...], ...]
    solver_steps: tuple[tuple[int, ...], ...]
    looks: tuple[int, ...]
    validation: tuple[tuple[float, ...], ...]
    accuracy: Score | None
    difference: Score | None
    seconds: float
    updates_to_accuracy: int | None
    steps_to_accuracy: int | None
    seconds_to_accuracy: float | None

    @property
    def last_horizons(self) -> tuple[float, ...]:
        """T before the last update, of each seed."""
        return tuple(run[-1] for run in self.horizons if run)

    @property
    def total_steps(self) -> float:
        """Solver steps of all updates, in the mean over seeds."""
        return float(np.mean([sum(run) for run in self.solver_steps]))


@dataclass(frozen=True)
class Figure5:
    """T during meta-training, and a learned T against fixed ones.

    - `data`, `budget`: what was asked for.
    - `filters`, `seeds`, `tasks`, `updates`: channels of the network, seeds of each training, tasks of each test, and
      updates of each training.
    - `shots`: of the tasks on which learned and fixed horizons are compared.
    - `wanted`: the accuracy on validation tasks that the time to accuracy is of.
    - `cost`: time of an update by its solver steps.
    - `learned`: rows with a T that is learned: by number of shots, and from where.
    - `compared`: rows on tasks of `shots`: T learned from a small start, and fixed.
    - `environment`: where they were computed.
    """

    data: str
    budget: Budget
    filters: int
    seeds: tuple[int, ...]
    tasks: int
    updates: int
    shots: int
    wanted: float
    cost: UpdateCost
    learned: tuple[HorizonRow, ...]
    compared: tuple[HorizonRow, ...]
    environment: dict[str, Any]


@dataclass(frozen=True)
class _Way:
    """One way to have a T, and the tasks that it is trained on."""

    name: str
    ways: int
    shots: int
    fixed: float | None = None


FROM_SMALL, AS_IN_TABLE_2 = "learned, from a small start", "learned, as in Table 2"


def compute(work: Workspace) -> Figure5:
    """Train what is not there yet; measure the time of updates. Table 2's trainings of COMLN are used again."""
    spending = spending_of(work)
    shots = spending.shots[-1]
    settings = [(5, k) for k in spending.shots]
    # Harder tasks stand in for harder data, of which the glyphs have no other.
    settings += [(MANY_WAYS, 1)] if work.data == "glyphs" and len(spending.shots) > 1 else []
    small = {
        _Way(FROM_SMALL, ways, k): cell_of(
            work, "comln", k, ways=ways, horizon=START, horizon_rate=RATE, variant=f"from-{START:g}"
        )
        for ways, k in settings
    }
    as_before = {_Way(AS_IN_TABLE_2, 5, k): cell_of(work, "comln", k) for k in spending.shots}
    fixed = {
        _Way(f"fixed, {horizon:g}", 5, shots, horizon): cell_of(
            work, "comln", shots, horizon=horizon, horizon_rate=0.0, variant=f"fixed-{horizon:g}"
        )
        for horizon in FIXED
    }
    cells = small | as_before | fixed
    done = dict(zip(cells, run_cells(work, list(cells.values())), strict=True))
    reference = done[_Way(FROM_SMALL, 5, shots)]
    experiment = reference.cell.experiment
    part = work.kept(
        "update-cost",
        {
            "experiment": described(experiment),
            "horizons": FIXED,
            "cores": os.cpu_count(),
            "processor": processor(),
        },
        lambda: asdict(update_cost(experiment, load(work), FIXED, 0.5 if work.budget is Budget.SMOKE else 4.0)),
    )
    cost = converter.structure(part, UpdateCost)
    wanted = REACHED * max((accuracy for _, accuracy in _mean_looks(reference)), default=0.0)
    rows = {way: _row(way, trained, reference, wanted, cost) for way, trained in done.items()}
    return Figure5(
        data=work.data,
        budget=work.budget,
        filters=spending.filters,
        seeds=spending.seeds,
        tasks=spending.tasks,
        updates=experiment.steps,
        shots=shots,
        wanted=wanted,
        cost=cost,
        learned=tuple(rows[way] for way in small | as_before),
        compared=tuple(rows[way] for way in (_Way(FROM_SMALL, 5, shots), *fixed)),
        environment=work.environment(),
    )


def _mean_looks(trained: TrainedCell) -> list[tuple[int, float]]:
    """Return the accuracy on validation tasks, in the mean over seeds, by the number of updates."""
    looks = [look for run in trained.runs for look in run.looks]
    return [
        (update, float(np.mean([accuracy for at, accuracy in looks if at == update])))
        for update in sorted({update for update, _ in looks})
    ]


def _row(way: _Way, trained: TrainedCell, reference: TrainedCell, wanted: float, cost: UpdateCost) -> HorizonRow:
    test = f"{way.shots}-shot"
    accuracies = trained.accuracies(test)
    looks = _mean_looks(trained)
    reached = next((update for update, accuracy in looks if accuracy >= wanted), None)
    spent = [run.solver_steps[:reached] for run in trained.runs]
    return HorizonRow(
        name=way.name,
        ways=way.ways,
        shots=way.shots,
        fixed=way.fixed,
        horizons=tuple(run.horizons for run in trained.runs),
        solver_steps=tuple(run.solver_steps for run in trained.runs),
        looks=tuple(update for update, _ in looks),
        validation=tuple(tuple(accuracy for _, accuracy in run.looks) for run in trained.runs),
        accuracy=None if accuracies is None else score(accuracies),
        difference=None if way.fixed is None else difference(accuracies, reference.accuracies(test)),
        seconds=float(np.mean([cost.seconds(run.solver_steps) for run in trained.runs])),
        updates_to_accuracy=reached,
        steps_to_accuracy=None if reached is None else round(float(np.mean([sum(run) for run in spent]))),
        seconds_to_accuracy=None if reached is None else float(np.mean([cost.seconds(run) for run in spent])),
    )
