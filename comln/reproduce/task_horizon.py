"""Does a horizon for each task win? The page of what `own_horizons` compares."""

__all__ = ["FILES", "compute", "describe", "draw", "numbers", "write"]

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from comln.reproduce.own_horizons import HORIZONS, SEEDS, KindRow, TaskHorizonResult, compute
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files

FILES = ("task-horizon.json", "task-horizon.svg", "task-horizon.png", "index.html")
"""What `write` writes."""


def draw(result: TaskHorizonResult) -> Figure:
    """Return the picture: the horizons of the kinds of tasks, and what they do to the query loss."""
    rows = result.rows[:-1]
    places = range(len(rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        shared = float(np.exp(np.mean(np.log(result.shared_horizons))))
        left.axvline(shared, color="#8a8f96", linewidth=1.2, label="one T for all tasks")
        left.plot([row.own_horizon for row in rows], places, "o", color="#d55e00", label="own T")
        left.plot(
            [row.oracle_horizon for row in rows], places, "D", color="#0072b2", label="best T (needs the answers)"
        )
        left.set(xscale="log", xlabel="horizon T (geometric mean)", title="(a) Horizons")
        left.set_yticks(places, [row.kind for row in rows])
        right.plot([row.shared_loss for row in rows], places, "|", color="#8a8f96", markersize=14, markeredgewidth=2)
        right.plot([row.own_loss for row in rows], places, "o", color="#d55e00")
        right.plot([row.oracle_loss for row in rows], places, "D", color="#0072b2")
        right.set(xlabel="query loss", title="(b) Loss at these horizons")
        left.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def numbers(result: TaskHorizonResult) -> dict[str, Any]:
    """Return the numbers as JSON can hold them."""
    return {"target": "task-horizon", **asdict(result)}


def describe(result: TaskHorizonResult) -> str:
    """Return the table as text."""
    return as_text(tables(result.rows, result.shared_horizons))


def tables(rows: Sequence[KindRow], shared_horizons: Sequence[float]) -> Iterator[Table]:
    """Yield the table."""

    def percent(pair: tuple[float, float], sign: str = "") -> str:
        return f"{100 * pair[0]:{sign}.2f} ± {100 * pair[1]:.2f}"

    header = [
        "tasks",
        "shared T, %",
        "own T, %",
        "best T, %",
        "own - shared, %",
        "loss shared",
        "own",
        "best",
        "own - shared",
    ]
    body = [
        [
            row.kind,
            percent(row.shared),
            percent(row.own),
            percent(row.oracle),
            percent(row.difference, "+"),
            f"{row.shared_loss:.4f}",
            f"{row.own_loss:.4f}",
            f"{row.oracle_loss:.4f}",
            f"{row.loss_difference[0]:+.4f} ± {row.loss_difference[1]:.4f}",
        ]
        for row in rows
    ]
    learned = ", ".join(f"{horizon:.3g}" for horizon in shared_horizons)
    yield f"Accuracy and query loss on unseen classes (shared T: {learned})", [header, *body]


def write(result: TaskHorizonResult, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "task-horizon")
    spending = result.spending
    ways, shots = (
        ", ".join(map(str, dict.fromkeys(getattr(kind, name) for kind in spending.kinds))) for name in ("ways", "shots")
    )
    explanation = (
        f"<p>A network is trained on a mixture of tasks of {ways} ways and {shots} shots, for {result.updates} "
        "updates, and kept as it is. Then "
        "the horizons are learned on tasks of other classes, in some of which 30 % of the support labels are wrong, by "
        "the exact gradient of the query loss in T: one T for all tasks, or one for each task by statistics of its "
        f"support set, in {spending.updates} updates and {len(SEEDS)} times. They are compared on {spending.tasks} "
        "tasks of each kind, of unseen scripts. The best T of a task is the one with the least loss on its own query "
        f"examples, among {len(HORIZONS)} from {HORIZONS[0]:g} to {HORIZONS[-1]:g}: nobody can know it. Its loss can "
        "hardly be lower; its accuracy may be exceeded. Intervals are of 95 %, differences paired.</p>"
    )
    command = f"task-horizon --budget {result.budget}"
    page = Page("A horizon for each task", svg, explanation, tables(result.rows, result.shared_horizons), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
