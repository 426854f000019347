"""Table 4: does the solver of the flow change the accuracy of COMLN? Runge-Kutta methods against Euler's."""

__all__ = [
    "DATA",
    "FILES",
    "Row",
    "Table4",
    "compute",
    "describe",
    "draw",
    "facts",
    "numbers",
    "restore",
    "tables",
    "write",
]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from comln.flow.integrator import Dopri5, Euler, Integrator
from comln.recipes.benchmarks import Number
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.few_shot_cells import (
    DATA,
    EULER,
    OTHER_SOLVER,
    cell_of,
    how_to_read,
    run_cells,
    spending_of,
    title_of,
)
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.scores import Score, difference, in_percent, is_within, score
from comln.reproduce.table2 import overlap
from comln.reproduce.workspace import Budget, Workspace

FILES = ("table4.json", "table4.svg", "table4.png", "index.html")
"""What `write` writes."""

SOLVERS: Mapping[str, tuple[Integrator | None, str]] = {
    "Runge-Kutta (Tsitouras)": (None, ""),
    "Runge-Kutta (Dormand, Prince)": (Integrator(method=Dopri5()), "dopri5"),
    "Euler": (EULER, "euler"),
}
"""By name, how the flow is followed in training, and the variant of the training. The first is that of Table 2."""

FIRST = next(iter(SOLVERS))
SAME_WEIGHTS, SAME_TRAINING = 0.001, 0.01
"""Up to these differences accuracies are alike: of the same weights, and of weights from two trainings."""

PAPER = {
    ("mini-imagenet", "Runge-Kutta (Dormand, Prince)"): {1: (53.01, 0.62), 5: (70.54, 0.54)},
    ("mini-imagenet", "Euler"): {1: (53.00, 0.83), 5: (70.50, 0.72)},
}


@dataclass(frozen=True)
class Row:
    """One solver, on tasks of so many shots.

    - `solver`, `shots`: which.
    - `accuracy`: trained and tested with this solver; `None` where training diverged.
    - `difference`: that minus the accuracy of the first solver; `None` for the first.
    - `of_same_weights`: accuracy when the same weights are tested with the other kind of solver, minus `accuracy`.
    - `solver_steps`: median over the updates of those of the longest task of an update, over all seeds.
    - `horizons`: T after training, of each seed.
    - `failed_tasks`: test tasks that could not be adapted to, counted as wrong, over all seeds.
    - `paper`, `agrees`: what the paper has on this data set, in percent, and whether the intervals overlap.
    """

    solver: str
    shots: int
    accuracy: Score | None
    difference: Score | None
    of_same_weights: Score | None
    solver_steps: float
    horizons: tuple[float, ...]
    failed_tasks: int
    paper: Number | None
    agrees: bool | None


@dataclass(frozen=True)
class Table4:
    """All solvers.

    - `data`, `budget`: what was asked for.
    - `filters`, `seeds`, `tasks`, `updates`: channels of the network, seeds of each training, tasks of each test, and
      updates of each training.
    - `euler_step`: length of a step of Euler's method, in units of t.
    - `rows`: the results.
    - `environment`: where they were computed.
    """

    data: str
    budget: Budget
    filters: int
    seeds: tuple[int, ...]
    tasks: int
    updates: int
    euler_step: float
    rows: tuple[Row, ...]
    environment: dict[str, Any]


def compute(work: Workspace) -> Table4:
    """Train and test what is not there yet. The trainings with the first solver are those of Table 2."""
    spending = spending_of(work)
    cells = {
        (solver, shots): cell_of(work, "comln", shots, integrator=integrator, variant=variant)
        for shots in spending.shots
        for solver, (integrator, variant) in SOLVERS.items()
    }
    done = dict(zip(cells, run_cells(work, list(cells.values())), strict=True))
    rows = []
    for shots in spending.shots:
        first = done[FIRST, shots].accuracies(f"{shots}-shot")
        for solver in SOLVERS:
            trained = done[solver, shots]
            own, other = trained.accuracies(f"{shots}-shot"), trained.accuracies(OTHER_SOLVER)
            accuracy, paper = None if own is None else score(own), _paper(work.data, solver, shots)
            rows.append(
                Row(
                    solver=solver,
                    shots=shots,
                    accuracy=accuracy,
                    difference=None if solver == FIRST else difference(own, first),
                    of_same_weights=difference(other, own),
                    solver_steps=float(np.median([s for run in trained.runs for s in run.solver_steps] or [0])),
                    horizons=tuple(run.scalars["horizon"] for run in trained.runs if run.diverged is None),
                    failed_tasks=sum(sum(run.failed.values()) for run in trained.runs),
                    paper=paper,
                    agrees=overlap(accuracy, paper),
                )
            )
    step = EULER.method.step if isinstance(EULER.method, Euler) else 0.0
    updates = next(iter(cells.values())).experiment.steps
    return Table4(
        data=work.data,
        budget=work.budget,
        filters=spending.filters,
        seeds=spending.seeds,
        tasks=spending.tasks,
        updates=updates,
        euler_step=step,
        rows=tuple(rows),
        environment=work.environment(),
    )


def _paper(data: str, solver: str, shots: int) -> Number | None:
    pair = PAPER.get((data, solver), {}).get(shots)
    return None if pair is None else Number(*pair, "4", "the paper itself", "")


def facts(result: Table4) -> tuple[Fact, ...]:
    """Return what the paper says of this table, judged: of the same weights, and of trainings with each solver."""
    same = [(row, row.of_same_weights) for row in result.rows if row.of_same_weights is not None]
    trained = [(row, row.difference) for row in result.rows if row.difference is not None]
    settled = {row.shots for row in result.rows if row.solver == FIRST and row.accuracy is not None}
    diverged = [
        f"{row.solver}, {row.shots}-shot" for row in result.rows if row.accuracy is None and row.shots in settled
    ]

    def words(pairs: list[tuple[Row, Score]]) -> str:
        return "; ".join(f"{row.solver}, {row.shots}-shot {in_percent(value, '+')}" for row, value in pairs)

    return (
        judged(
            "The solver does not change the accuracy of a trained COMLN.",
            _all_within([value for _, value in same], SAME_WEIGHTS),
            f"the same weights with Euler steps instead of Runge-Kutta's, or the reverse, gain: {words(same)} points; "
            f"alike is within {100 * SAME_WEIGHTS:g}.",
        ),
        judged(
            "The solver of training does not change the accuracy of COMLN.",
            False if diverged else _all_within([value for _, value in trained], SAME_TRAINING),
            f"minus {FIRST}: {words(trained)} points; alike is within {100 * SAME_TRAINING:g}. Diverged: "
            f"{'; '.join(diverged) or 'none'}.",
        ),
    )


def _all_within(values: list[Score], margin: float) -> bool | None:
    found = [is_within(value, margin) for value in values]
    if not found or False in found:
        return False if found else None
    return None if None in found else True


def draw(result: Table4) -> Figure:
    """Return the picture: accuracy of each solver, a dot for each seed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 2.6), layout="constrained")
        shots = list(dict.fromkeys(row.shots for row in result.rows))
        panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
        for axes, count in zip(panels, shots, strict=True):
            rows = [row for row in result.rows if row.shots == count]
            for place, row in enumerate(rows):
                if row.accuracy is None:
                    continue
                colour = "#0072b2" if row.solver == "Euler" else "#d55e00"
                seeds = row.accuracy.of_seeds
                axes.plot([100 * x for x in seeds], [place] * len(seeds), "o", color=colour, markersize=4, alpha=0.5)
                axes.errorbar(100 * row.accuracy.mean, place, xerr=100 * row.accuracy.ci95, color=colour, marker="|",
                              markersize=9, capsize=2)  # fmt: skip
            axes.set_yticks(range(len(rows)), [row.solver for row in rows])
            axes.set(title=f"{result.data}, 5-way {count}-shot", xlabel="accuracy on unseen classes, %")
            axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)
        # The panels share the axis.
        panels[0].set_ylim(len(SOLVERS) - 0.4, -0.6)
    return figure


def numbers(result: Table4) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers("table4", result, facts(result))


def restore(content: Mapping[str, Any]) -> Table4:
    """Return a result from its `numbers`."""
    return from_numbers(content, Table4)


def describe(result: Table4) -> str:
    """Return the table and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Table4) -> Iterator[Table]:
    """Yield the table."""
    header = ["tasks", "solver of training", "accuracy, %", f"minus {FIRST}, %", "same weights, other solver, %"]
    header += ["solver steps", "learned T", "failed", "paper, mini-imagenet"]
    header += [] if result.data == "glyphs" else ["agrees"]
    body = []
    for row in result.rows:
        paper = _paper("mini-imagenet", row.solver, row.shots)
        line = [
            f"5-way {row.shots}-shot",
            row.solver,
            in_percent(row.accuracy),
            "" if row.difference is None else in_percent(row.difference, "+"),
            "" if row.of_same_weights is None else in_percent(row.of_same_weights, "+"),
            f"{row.solver_steps:.0f}",
            ", ".join(f"{horizon:.1f}" for horizon in row.horizons),
            str(row.failed_tasks),
            "" if paper is None else f"{paper.accuracy:.2f} ± {paper.ci95:.2f}",
        ]
        if result.data != "glyphs":
            line.append({True: "pass", False: "fail", None: ""}[row.agrees])
        body.append(line)
    seeds = ", ".join(map(str, result.seeds))
    yield (
        f"{result.data}: {result.tasks} test tasks, seeds {seeds}, Euler steps of {result.euler_step:g}",
        [header, *body],
    )


def write(result: Table4, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "table4")
    explanation = (
        f"<p>COMLN with {result.filters} channels, trained for {result.updates:,} updates with each solver of the "
        "flow, and tested with the same and with the other kind. Steps are those of the longest task of an update, in "
        "the median. Intervals are of 95 %, over tasks; in brackets stand the lowest and the highest seed. Differences "
        "are paired by seed and task: seeds start at the same weights and see the same tasks. "
        f"{how_to_read(result.data, result.budget)}</p>{as_html(facts(result))}"
    )
    title = title_of("Table 4: the solver of the flow", result.data)
    command = f"table4 --budget {result.budget}" + ("" if result.data == "glyphs" else f" --data {result.data}")
    page = Page(title, svg, explanation, tables(result), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
