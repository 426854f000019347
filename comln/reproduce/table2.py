"""Table 2: every method on 5-way tasks of 1 and 5 shots, for the same number of updates, with several seeds."""

__all__ = [
    "DATA",
    "FILES",
    "Row",
    "Table2",
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
from matplotlib.lines import Line2D

from comln.recipes import LEARNERS
from comln.recipes.benchmarks import Number, published
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.few_shot_cells import DATA, cell_of, how_to_read, run_cells, spending_of, title_of
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.scores import Score, alike_within, difference, gap, in_percent, score, sign_of
from comln.reproduce.workspace import Budget, Workspace

FILES = ("table2.json", "table2.svg", "table2.png", "index.html")
"""What `write` writes."""

MORE_SHOTS = 15
GRADIENT_BASED = ("maml", "anil", "meta-sgd", "cavia", "imaml")
"""What the paper's Table 2 marks as gradient-based, besides COMLN."""

META_OPT_NET = ("metaoptnet-rr", "metaoptnet-svm")
NEAR = 0.02
"""COMLN nears a method that is better by less than this: the gap in the paper's Conv-4 rows is 0.76 points at most. It
has to be less than half of what COMLN has wrong, too."""

PAPER_DATA = ("mini-imagenet", "tiered-imagenet")
ORANGE, BLUE, GREEN = "#d55e00", "#0072b2", "#009e73"


@dataclass(frozen=True)
class Row:
    """One method, tested on tasks of so many shots.

    - `learner`, `training_shots`, `shots`: which, trained and tested with how many shots.
    - `accuracy`: on the test tasks; `None` where training diverged.
    - `difference`: accuracy minus that of COMLN; `None` for COMLN itself, or where either diverged.
    - `failed_tasks`: test tasks that could not be adapted to, counted as wrong, over all seeds.
    - `updates`, `tasks_per_step`: of each training.
    - `update_s`: median time of an update, on a machine that may have done other work: not a result.
    - `paper`: what the paper has on this data set, in percent; `None` for a stand-in, or where it has nothing.
    - `agrees`: whether its interval and ours overlap.
    """

    learner: str
    training_shots: int
    shots: int
    accuracy: Score | None
    difference: Score | None
    failed_tasks: int
    updates: int
    tasks_per_step: int
    update_s: float
    paper: Number | None
    agrees: bool | None

    @property
    def name(self) -> str:
        """The method, and its training shots where they are others than the test's."""
        return self.learner if self.training_shots == self.shots else f"{self.learner}, {self.training_shots} shots"


@dataclass(frozen=True)
class Table2:
    """All methods.

    - `data`, `budget`: what was asked for.
    - `filters`, `seeds`, `tasks`: channels of the network, seeds of each training, and tasks of each test.
    - `shots`: of the test tasks.
    - `rows`: the results.
    - `environment`: where they were computed.
    """

    data: str
    budget: Budget
    filters: int
    seeds: tuple[int, ...]
    tasks: int
    shots: tuple[int, ...]
    rows: tuple[Row, ...]
    environment: dict[str, Any]

    def of(self, shots: int) -> list[Row]:
        """Return the rows of tests with so many shots."""
        return [row for row in self.rows if row.shots == shots]


def compute(work: Workspace) -> Table2:
    """Train and test what is not there yet, one method, number of shots and seed after the other."""
    spending = spending_of(work)
    cells = {(learner, shots): cell_of(work, learner, shots) for shots in spending.shots for learner in LEARNERS}
    for learner in META_OPT_NET:
        cells[learner, MORE_SHOTS] = cell_of(
            work, learner, 5, training_shots=MORE_SHOTS, variant=f"{MORE_SHOTS}-shot-training"
        )
    done = dict(zip(cells, run_cells(work, list(cells.values())), strict=True))
    rows = []
    for shots in spending.shots:
        comln = done["comln", shots].accuracies(f"{shots}-shot")
        for (learner, training_shots), cell in cells.items():
            if f"{shots}-shot" not in cell.tests:
                continue
            trained = done[learner, training_shots]
            accuracies = trained.accuracies(f"{shots}-shot")
            accuracy = None if accuracies is None else score(accuracies)
            paper = _paper(work.data, learner, training_shots, shots)
            rows.append(
                Row(
                    learner=learner,
                    training_shots=training_shots,
                    shots=shots,
                    accuracy=accuracy,
                    difference=None if learner == "comln" else difference(accuracies, comln),
                    failed_tasks=sum(run.failed.get(f"{shots}-shot", 0) for run in trained.runs),
                    updates=cell.experiment.steps,
                    tasks_per_step=cell.experiment.tasks_per_step,
                    update_s=float(np.median([run.update_s for run in trained.runs])),
                    paper=paper,
                    agrees=overlap(accuracy, paper),
                )
            )
    return Table2(
        data=work.data,
        budget=work.budget,
        filters=spending.filters,
        seeds=spending.seeds,
        tasks=spending.tasks,
        shots=spending.shots,
        rows=tuple(rows),
        environment=work.environment(),
    )


def _paper(data: str, learner: str, training_shots: int, shots: int) -> Number | None:
    """Return what the paper has; its MetaOptNet was trained with more shots than it was tested with."""
    if learner in META_OPT_NET and training_shots == shots:
        return None
    return published(f"{data}-5way-{shots}shot", learner)


def overlap(accuracy: Score | None, paper: Number | None) -> bool | None:
    """Return whether the 95 % intervals of ours and of the paper's overlap; `None` where one is missing."""
    if accuracy is None or paper is None:
        return None
    return abs(100 * accuracy.mean - paper.accuracy) <= 100 * accuracy.ci95 + paper.ci95


# What is concluded


def facts(result: Table2) -> tuple[Fact, ...]:
    """Return what the paper says of this table, judged."""
    return tuple(
        fact
        for shots in result.shots
        for fact in (_beats(result, shots), _nears(result, shots), *_more_shots(result, shots))
    )


def _words(row: Row) -> str:
    return f"{row.name} {in_percent(row.difference, '+')}"


def _has(result: Table2, shots: int) -> bool:
    """Whether COMLN did not diverge."""
    return any(row.learner == "comln" and row.accuracy is not None for row in result.of(shots))


def _beats(result: Table2, shots: int) -> Fact:
    rivals = [row for row in result.of(shots) if row.learner in GRADIENT_BASED]
    signs = [sign_of(row.difference) for row in rivals if row.difference is not None]
    # A rival that diverged is beaten, if COMLN is not.
    holds = False if 1 in signs else None if None in signs or not _has(result, shots) else True
    evidence = f"the others minus COMLN are: {'; '.join(map(_words, rivals))} points."
    return judged(f"COMLN is better than every other gradient-based method ({shots}-shot).", holds, evidence)


def _nears(result: Table2, shots: int) -> Fact:
    rows = [row for row in result.of(shots) if row.learner in META_OPT_NET and row.difference is not None]
    claim = f"COMLN nears MetaOptNet ({shots}-shot)."
    if not rows:
        return judged(claim, None, "COMLN or every form of MetaOptNet diverged.")
    best = max(rows, key=lambda row: row.difference.mean if row.difference else 0.0)
    margin = alike_within(NEAR, next((row.accuracy for row in result.of(shots) if row.learner == "comln"), None))
    sign = None if best.difference is None else sign_of(best.difference, margin)
    holds = None if sign is None else sign == -1
    evidence = f"the better of its forms minus COMLN is {_words(best)} points; near is within {100 * margin:.2f}."
    return judged(claim, holds, evidence)


def _more_shots(result: Table2, shots: int) -> Iterator[Fact]:
    for learner in META_OPT_NET:
        rows = {row.training_shots: row for row in result.of(shots) if row.learner == learner}
        many, few, lead = rows[MORE_SHOTS].accuracy, rows[shots].accuracy, rows[MORE_SHOTS].difference
        claim = f"{learner} owes a part of its lead over COMLN to more training shots ({shots}-shot)."
        if many is None or few is None or lead is None:
            yield judged(claim, None, "one of them diverged.")
            continue
        gain = gap(many, few)
        signs = sign_of(gain), sign_of(lead)
        yield judged(
            claim,
            True if signs == (1, 1) else False if -1 in signs else None,
            f"by {MORE_SHOTS} training shots instead of {shots} it gains {in_percent(gain, '+')} points, and is "
            f"then ahead by {in_percent(lead, '+')}.",
        )


# What is written and printed


def draw(result: Table2) -> Figure:
    """Return the picture: a panel for each number of shots, a line for each method, a dot for each seed."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 4.8), layout="constrained")
        panels = figure.subplots(1, len(result.shots), sharey=True, squeeze=False)[0]
        for axes, shots in zip(panels, result.shots, strict=True):
            rows = result.of(shots)
            for place, row in enumerate(rows):
                if row.accuracy is None:
                    continue
                gradient = row.learner in GRADIENT_BASED
                colour = ORANGE if row.learner == "comln" else BLUE if gradient else GREEN
                axes.plot([100 * x for x in row.accuracy.of_seeds], [place] * len(row.accuracy.of_seeds), "o",
                          color=colour, markersize=3, alpha=0.5)  # fmt: skip
                axes.errorbar(100 * row.accuracy.mean, place, xerr=100 * row.accuracy.ci95, color=colour,
                              marker="|", markersize=9, capsize=2)  # fmt: skip
                if row.learner == "comln":
                    axes.axvline(100 * row.accuracy.mean, color=colour, linewidth=0.8, linestyle="--")
                if row.paper is not None:
                    axes.errorbar(row.paper.accuracy, place + 0.3, xerr=row.paper.ci95, color="#8a8f96", marker="D",
                                  markersize=3, capsize=2)  # fmt: skip
            axes.set_yticks(range(len(rows)), [row.name for row in rows])
            axes.set(title=f"{result.data}, 5-way {shots}-shot", xlabel="accuracy on unseen classes, %")
            axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)
        # The panels share the axis.
        panels[0].set_ylim(len(result.of(result.shots[0])) - 0.5, -0.5)
        kinds = {"COMLN": ORANGE, "other gradient-based methods": BLUE, "others": GREEN}
        lines = [Line2D([], [], color=colour, marker="|") for colour in kinds.values()]
        figure.legend(lines, list(kinds), loc="outside lower center", ncols=3)
    return figure


def numbers(result: Table2) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers("table2", result, facts(result))


def restore(content: Mapping[str, Any]) -> Table2:
    """Return a result from its `numbers`."""
    return from_numbers(content, Table2)


def describe(result: Table2) -> str:
    """Return the tables and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Table2) -> Iterator[Table]:
    """Yield a table for each number of shots."""
    for shots in result.shots:
        ours = [*PAPER_DATA] if result.data == "glyphs" else [result.data]
        header = ["method", "accuracy, %", "minus COMLN's, %", "updates", "tasks seen", "failed"]
        header += [f"paper, {data}" for data in ours] + ([] if result.data == "glyphs" else ["agrees"])
        body = []
        for row in result.of(shots):
            paper = [_paper(data, row.learner, row.training_shots, shots) for data in ours]
            line = [
                row.name,
                in_percent(row.accuracy),
                "" if row.difference is None else in_percent(row.difference, "+"),
                f"{row.updates:,}",
                f"{row.updates * row.tasks_per_step:,}",
                str(row.failed_tasks),
                *("" if number is None else f"{number.accuracy:.2f} ± {number.ci95:.2f}" for number in paper),
            ]
            if result.data != "glyphs":
                line.append({True: "pass", False: "fail", None: ""}[row.agrees])
            body.append(line)
        title = (
            f"{result.data}, 5-way {shots}-shot: {result.tasks} test tasks, seeds {', '.join(map(str, result.seeds))}"
        )
        yield title, [header, *body]


def write(result: Table2, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "table2")
    explanation = (
        f"<p>Each method was trained with {result.filters} channels for the same number of updates, so that a machine "
        "that does other work gives the same numbers, and with several seeds; it was tested on the same tasks of "
        "unseen classes. The interval is of 95 %, over tasks; in brackets stand the lowest and the highest seed, in "
        "the picture each seed is a dot. Differences are paired by seed and task. A method that adapts a whole "
        "network has seen half as many tasks. MetaOptNet was also trained with 15 shots, as its authors do. "
        f"{how_to_read(result.data, result.budget)}</p>{as_html(facts(result))}"
    )
    title = title_of("Table 2: every method, for the same number of updates,", result.data)
    command = f"table2 --budget {result.budget}" + ("" if result.data == "glyphs" else f" --data {result.data}")
    page = Page(title, svg, explanation, tables(result), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
