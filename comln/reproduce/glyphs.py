"""Every method on glyphs: 5-way 1-shot, 5-way 5-shot and 20-way 1-shot, with the same time for training."""

__all__ = ["FILES", "Comparison", "Row", "compute", "describe", "draw", "numbers", "tables", "write"]

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from comln.data.source import Split, content_hash
from comln.evaluate import mean_and_ci95
from comln.recipes import LEARNERS, find
from comln.recipes.experiment import Experiment
from comln.reproduce.counted_training import described
from comln.reproduce.measure import processor
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.timed_training import train_for
from comln.reproduce.workspace import Budget, Workspace

FILES = ("glyphs.json", "glyphs.svg", "glyphs.png", "index.html")
"""What `write` writes."""

SETTINGS = ("glyphs-5way-1shot", "glyphs-5way-5shot", "glyphs-20way-1shot")
SEED = 0


@dataclass(frozen=True)
class Spending:
    """What a budget buys: training time of each method, test tasks of 5 and of 20 ways, channels, and settings."""

    seconds: float
    tasks: int
    tasks_of_many_ways: int
    filters: int
    settings: tuple[str, ...]


SPENDING = {
    Budget.SMOKE: Spending(2.0, 50, 50, 8, SETTINGS[:1]),
    Budget.COMMITTED: Spending(60.0, 1000, 300, 32, SETTINGS),
    Budget.FULL: Spending(1200.0, 1000, 1000, 64, SETTINGS),
}


@dataclass(frozen=True)
class Row:
    """One method in one setting.

    - `setting`, `learner`: which.
    - `accuracy`, `ci95`: mean over the test tasks, with the half-width of its 95 % confidence interval.
    - `difference`, `difference_ci95`: accuracy minus that of COMLN, task by task, likewise; none for COMLN.
    - `failed_tasks`: test tasks that could not be adapted to, counted as wrong.
    - `updates`, `tasks_per_step`, `training_s`: how much training the time was enough for.
    - `temporary_bytes`: the compiler's figure for the memory of an update besides its arguments and results.
    - `test_ms`: time for a test task, embedding included.
    - `scalars`: meta-learned numbers after training.
    """

    setting: str
    learner: str
    accuracy: float
    ci95: float
    difference: float | None
    difference_ci95: float | None
    failed_tasks: int
    updates: int
    tasks_per_step: int
    training_s: float
    temporary_bytes: int
    test_ms: float
    scalars: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """All methods in all settings.

    - `budget`, `spending`: what was asked for.
    - `tasks`: number of test tasks, by setting.
    - `rows`: the results.
    - `environment`: where they were measured.
    """

    budget: Budget
    spending: Spending
    tasks: dict[str, int]
    rows: tuple[Row, ...]
    environment: dict[str, Any]


def compute(work: Workspace) -> Comparison:
    """Train and evaluate what is not there yet, one method in one setting after the other."""
    spending = SPENDING[work.budget]
    cells = [(setting, learner) for setting in spending.settings for learner in LEARNERS]
    splits = find(SETTINGS[0], "comln", "house").data.load()
    data = content_hash(splits)
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    tasks = {}
    for number, (setting, learner) in enumerate(cells):
        experiment = _experiment(setting, learner, spending)
        tasks[setting] = spending.tasks_of_many_ways if experiment.test.ways > 5 else spending.tasks
        work.on_progress(f"{learner} on {setting}", number / len(cells))
        configuration = {
            "experiment": described(experiment),
            "seconds": spending.seconds,
            "tasks": tasks[setting],
            "seed": SEED,
            "data_hash": data,
            "cores": os.cpu_count(),
            "processor": processor(),
        }
        say = functools.partial(_say, work, f"{learner} on {setting}", number / len(cells))
        train = functools.partial(_train, experiment, splits, spending.seconds, tasks[setting], say)
        parts[setting, learner] = work.kept(f"{setting}-{learner}", configuration, train)
    rows = [_row(setting, learner, parts[setting, learner], parts[setting, "comln"]) for setting, learner in cells]
    return Comparison(work.budget, spending, tasks, tuple(rows), work.environment())


def _experiment(setting: str, learner: str, spending: Spending) -> Experiment:
    experiment = find(setting, learner, "house")
    return dataclasses.replace(experiment, backbone=dataclasses.replace(experiment.backbone, filters=spending.filters))


def _say(work: Workspace, cell: str, done: float, what: str) -> None:
    work.on_progress(f"{cell}: {what}", done)


def _train(
    experiment: Experiment, splits: dict[str, Split], seconds: float, tasks: int, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    result = train_for(experiment, splits, seconds, tasks, SEED, on_progress)
    return {
        "accuracies": [round(float(x), 5) for x in result.evaluation.accuracies],
        "failed_tasks": result.evaluation.failed,
        "updates": result.experiment.steps,
        "tasks_per_step": experiment.tasks_per_step,
        "training_s": round(result.training_s, 1),
        "temporary_bytes": result.temporary_bytes,
        "test_ms": round(result.test_ms, 3),
        "scalars": {name: float(value) for name, value in result.state.learner.scalars().items()},
    }


def _row(setting: str, learner: str, part: dict[str, Any], comln: dict[str, Any]) -> Row:
    accuracies = np.array(part["accuracies"])
    others = {name: value for name, value in part.items() if name != "accuracies"}
    difference, difference_ci95 = None, None
    if learner != "comln":
        difference, difference_ci95 = mean_and_ci95(accuracies - np.array(comln["accuracies"]))
    accuracy, ci95 = mean_and_ci95(accuracies)
    return Row(setting, learner, accuracy, ci95, difference, difference_ci95, **others)


def draw(result: Comparison) -> Figure:
    """Return the picture: a panel for each setting, a line for each method."""
    settings = list(result.tasks)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.2 + 3.4 * len(settings), 4.2), layout="constrained")
        panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
        for axes, setting in zip(panels, settings, strict=True):
            rows = [row for row in result.rows if row.setting == setting]
            places = range(len(rows))
            comln = next(row.accuracy for row in rows if row.learner == "comln")
            axes.axvline(100 * comln, color="#d55e00", linewidth=0.8, linestyle="--")
            for place, row in zip(places, rows, strict=True):
                colour = "#d55e00" if row.learner == "comln" else "#0072b2"
                axes.errorbar(
                    100 * row.accuracy, place, xerr=100 * row.ci95, color=colour, marker="o", markersize=4, capsize=2
                )
            axes.set_yticks(places, [row.learner for row in rows])
            axes.set(title=setting.removeprefix("glyphs-"), xlabel="accuracy on unseen classes, %")
            axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)
        panels[0].invert_yaxis()
    return figure


def numbers(result: Comparison) -> dict[str, Any]:
    """Return the numbers as JSON can hold them."""
    return {"target": "glyphs", **asdict(result)}


def describe(result: Comparison) -> str:
    """Return the tables as text."""
    return as_text(tables(result.rows, result.tasks))


def tables(rows: Sequence[Row], tasks: dict[str, int]) -> Iterator[Table]:
    """Yield a table for each setting."""
    header = [
        "method",
        "accuracy, %",
        "minus COMLN's, %",
        "updates",
        "tasks seen",
        "ms/update",
        "memory, MB",
        "ms/test task",
        "failed",
    ]
    for setting, count in tasks.items():
        body = [
            [
                row.learner,
                f"{100 * row.accuracy:.2f} ± {100 * row.ci95:.2f}",
                ""
                if row.difference is None or row.difference_ci95 is None
                else f"{100 * row.difference:+.2f} ± {100 * row.difference_ci95:.2f}",
                str(row.updates),
                f"{row.updates * row.tasks_per_step:,}",
                f"{1e3 * row.training_s / (row.updates - 1):.0f}",
                f"{row.temporary_bytes / 1e6:.0f}",
                f"{row.test_ms:.1f}",
                str(row.failed_tasks),
            ]
            for row in rows
            if row.setting == setting
        ]
        yield f"{setting.removeprefix('glyphs-')}, {count} test tasks", [header, *body]


def write(result: Comparison, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "glyphs")
    spending = result.spending
    explanation = (
        f"<p>Each method was trained for {spending.seconds:g} s of updates in each setting (compilation not counted), "
        f"by the house recipe with {spending.filters} channels, seed {SEED}, and evaluated on the same tasks of unseen "
        "scripts, support and query in different typefaces. Bars are 95 % confidence intervals of the mean over tasks; "
        "differences are paired, task by task. Methods that adapt a whole network make fewer updates in the same time. "
        "Memory is the compiler's figure for an update besides its arguments and results.</p>"
    )
    title = "Every method on glyphs, with the same time for training"
    command = f"glyphs --budget {result.budget}"
    page = Page(title, svg, explanation, tables(result.rows, result.tasks), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
