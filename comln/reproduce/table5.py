"""Table 5: methods on embeddings that are not learned with them, and MetaOptNet's solver on these (E.4). The page."""

__all__ = ["DATA", "FILES", "compute", "describe", "draw", "facts", "numbers", "restore", "tables", "write"]

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from comln.recipes.benchmarks import published
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.few_shot_cells import how_to_read, title_of
from comln.reproduce.frozen_features import DATA, LINEAR, METHODS, PAPER_DATA, Table5, compute
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.scores import Score, alike_within, in_percent, is_within, sign_of
from comln.reproduce.svm_heads import CHOSEN, HEADS

FILES = ("table5.json", "table5.svg", "table5.png", "index.html")
"""What `write` writes."""

ALIKE = 0.02
"""Accuracies that differ by less are alike, if it is also less than half of what COMLN has wrong."""

SAME_SOLUTION = 0.01


# What is concluded


def facts(result: Table5) -> tuple[Fact, ...]:
    """Return what the paper says of this table (E.4), judged."""
    return tuple(_facts(result))


def _facts(result: Table5) -> Iterator[Fact]:
    for shots in result.spending.shots:
        margin = _margin(result, shots)
        others = [row for row in result.rows if row.shots == shots and row.learner in LINEAR and row.learner != "comln"]
        known = any(row.shots == shots and row.learner == "comln" and row.accuracy is not None for row in result.rows)
        # One that diverged is not alike.
        within = [row.difference is not None and is_within(row.difference, margin) for row in others] if known else []
        holds = False if False in within else None if None in within or not within else True
        words = "; ".join(f"{row.learner} {in_percent(row.difference, '+')}" for row in others)
        yield judged(
            f"On frozen features all methods with a linear head are alike ({shots}-shot).",
            holds,
            f"minus COMLN: {words} points; alike is within {100 * margin:.2f}, {100 * ALIKE:g} points or half of what "
            "COMLN has wrong, whichever is less.",
        )
    yield _short_solver(result)
    yield _separate_machines(result)
    yield from _horizons(result)


def _margin(result: Table5, shots: int) -> float:
    """Return by how much accuracies may differ to be alike."""
    found = (row.accuracy for row in result.rows if (row.learner, row.shots) == ("comln", shots))
    return alike_within(ALIKE, next(found, None))


def _short_solver(result: Table5) -> Fact:
    first = HEADS[0]
    found = [(row, row.difference) for row in result.heads if row.head == first and row.difference is not None]
    lost = [value[0] + value[1] < -SAME_SOLUTION for _, value in found]
    close = [value[0] - value[1] >= -SAME_SOLUTION for _, value in found]
    words = "; ".join(f"{row.shots}-shot, {_norm_words(row.unit_norm)}: {_pair(value, '+')}" for row, value in found)
    exact = "; ".join(
        f"{row.shots}-shot, {_norm_words(row.unit_norm)}: {100 * row.accuracy[0]:.2f}"
        for row in result.heads
        if row.head == "exact"
    )
    return judged(
        "MetaOptNet's few iterations of its solver cost it accuracy on frozen features.",
        True if any(lost) else False if close and all(close) else None,
        f"3 iterations minus the exact solution: {words} points. Solved exactly it comes to {exact} %.",
    )


def _separate_machines(result: Table5) -> Fact:
    """Judge the machine whose C was chosen on validation tasks, on embeddings as COMLN has them."""
    found = [
        (row, row.minus_comln, _margin(result, row.shots))
        for row in result.heads
        if row.head == CHOSEN and row.minus_comln is not None
    ]
    words = "; ".join(f"{row.shots}-shot {in_percent(behind, '+')}" for row, behind, _ in found)
    margins = " and ".join(f"{100 * margin:.2f}" for _, _, margin in found)
    signs = [sign_of(behind, -margin) for _, behind, margin in found]
    holds = False if -1 in signs else True if signs and None not in signs else None
    tasks = max((row.tasks for row, _, _ in found), default=0)
    return judged(
        "Support vector machines fitted one by one match COMLN.",
        holds,
        f"minus COMLN on {tasks} tasks, with C chosen on validation tasks: {words} points; one that is not worse by "
        f"more than {margins} matches it."
        if found
        else "not measured.",
    )


def _horizons(result: Table5) -> Iterator[Fact]:
    found = {row.shots: row.horizons for row in result.rows if row.learner == "comln" and row.horizons}
    if {1, 5} <= found.keys() and min(len(found[1]), len(found[5])) > 1:
        one, five = found[1], found[5]
        yield judged(
            "T is shorter for 1 shot than for 5 (E.3), on frozen features.",
            True if max(one) < min(five) else False if min(one) > max(five) else None,
            f"T is {min(one):,.0f} to {max(one):,.0f} for 1 shot and {min(five):,.0f} to {max(five):,.0f} for 5, over "
            "seeds.",
        )


def _norm_words(unit: bool) -> str:
    return "norm one" if unit else "as they are"


# What is drawn, written and printed


def draw(result: Table5) -> Figure:
    """Return the picture: accuracy of each method, a dot for each seed, and below of each machine."""
    with matplotlib.rc_context(STYLE):
        shots = result.spending.shots
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
        for axes, count in zip(panels, shots, strict=True):
            lines: list[tuple[str, float, float, tuple[float, ...], str]] = []
            for row in result.rows:
                if row.shots == count:
                    colour = "#d55e00" if row.learner == "comln" else "#0072b2"
                    lines.append((row.learner, *_drawn(row.accuracy), colour))
            for head in result.heads:
                if head.shots == count and head.unit_norm == result.unit_norm:
                    lines.append((f"SVM: {head.head}", *head.accuracy, (), "#009e73"))
            for place, (_, mean, ci95, seeds, colour) in enumerate(lines):
                axes.plot([100 * x for x in seeds], [place] * len(seeds), "o", color=colour, markersize=3, alpha=0.5)
                axes.errorbar(100 * mean, place, xerr=100 * ci95, color=colour, marker="|", markersize=9, capsize=2)
            axes.set_yticks(range(len(lines)), [line[0] for line in lines])
            axes.set(title=f"{result.data}, 5-way {count}-shot", xlabel="accuracy on unseen classes, %")
            axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)
        # The panels share the axis.
        panels[0].set_ylim(len(METHODS) + len(HEADS) - 0.5, -0.5)
    return figure


def _drawn(found: Score | None) -> tuple[float, float, tuple[float, ...]]:
    """Return mean, interval and seeds; what is not there is not drawn, but has its place."""
    return (math.nan, math.nan, ()) if found is None else (found.mean, found.ci95, found.of_seeds)


def numbers(result: Table5) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers("table5", result, facts(result))


def restore(content: Mapping[str, Any]) -> Table5:
    """Return a result from its `numbers`."""
    return from_numbers(content, Table5)


def describe(result: Table5) -> str:
    """Return the tables and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Table5) -> Iterator[Table]:
    """Yield a table of the methods for each number of shots, and one of the machines."""
    for shots in result.spending.shots:
        header = ["method", "accuracy, %", "minus COMLN's, %", "T", "failed", f"paper, {PAPER_DATA}"]
        header += [] if result.data == "glyphs" else ["agrees"]
        body = []
        for row in result.rows:
            if row.shots != shots:
                continue
            paper = published(f"{PAPER_DATA}-5way-{shots}shot", row.learner)
            line = [
                row.learner if row.learner in LINEAR else f"{row.learner} (not a linear head)",
                in_percent(row.accuracy),
                "" if row.difference is None else in_percent(row.difference, "+"),
                ", ".join(f"{horizon:.3g}" for horizon in row.horizons),
                str(row.failed_tasks),
                "" if paper is None else f"{paper.accuracy:.2f} ± {paper.ci95:.2f}",
            ]
            if result.data != "glyphs":
                line.append({True: "pass", False: "fail", None: ""}[row.agrees])
            body.append(line)
        yield f"Frozen embeddings of {result.data}, 5-way {shots}-shot, {result.spending.tasks} tasks", [header, *body]
    header = ["tasks", "embeddings", "machine", "C", "accuracy, %", "minus exact, %", "minus COMLN's, %", "test tasks"]
    body = [
        [
            f"5-way {head.shots}-shot",
            _norm_words(head.unit_norm),
            head.head,
            f"{head.penalty:g}",
            _pair(head.accuracy),
            "" if head.difference is None else _pair(head.difference, "+"),
            "" if head.minus_comln is None else in_percent(head.minus_comln, "+"),
            str(head.tasks),
        ]
        for head in result.heads
    ]
    yield "Support vector machines on the same embeddings", [header, *body]


def _pair(pair: tuple[float, float], sign: str = "") -> str:
    return f"{100 * pair[0]:{sign}.2f} ± {100 * pair[1]:.2f}"


def write(result: Table5, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "table5")
    spending = result.spending
    origin = (
        f"The embeddings have {result.features} numbers and a mean square norm of {result.mean_square_norm:.3g}"
        if result.supervised_accuracy is None
        else f"A Conv-4 network of {spending.filters} channels was trained for {spending.supervised_updates} updates "
        f"to tell all characters of the meta-train split apart ({100 * result.supervised_accuracy:.1f} % right on its "
        f"last batches). Its embeddings, of {result.features} numbers and a mean square norm of "
        f"{result.mean_square_norm:.3g}, are divided by their norms for the methods. The settings of these, but for "
        "COMLN and ProtoNet, were chosen for each number of shots, at the committed budget with the first seed, on "
        "tasks of the meta-validation classes"
    )
    explanation = (
        f"<p>{origin}. Methods learn what they have besides a network, on tasks of the meta-train classes, with "
        f"seeds {', '.join(map(str, spending.seeds))}; ProtoNet learns nothing. Intervals are of 95 %, over tasks; in "
        "brackets stand the lowest and the highest seed. Differences are paired; near 100 % they have little room. The "
        "machines of MetaOptNet have its ridge; those of scikit-learn are fitted to one task at a time, and are "
        f"another problem or another solver. "
        f"{how_to_read(result.data, result.budget)}</p>{as_html(facts(result))}"
    )
    title = title_of("Table 5: methods on frozen embeddings,", result.data)
    command = f"table5 --budget {result.budget}" + ("" if result.data == "glyphs" else f" --data {result.data}")
    page = Page(title, svg, explanation, tables(result), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
