"""Figure 5: T during meta-training, and a learned T against fixed ones. The picture, the tables and the page."""

__all__ = ["DATA", "FILES", "compute", "describe", "draw", "facts", "numbers", "restore", "tables", "write"]

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.few_shot_cells import DATA, how_to_read, title_of
from comln.reproduce.horizons import FROM_SMALL, Figure5, HorizonRow, compute
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.scores import in_percent, sign_of

FILES = ("figure5.json", "figure5.svg", "figure5.png", "index.html")
"""What `write` writes."""

AS_GOOD = 0.01
"""A learned T matches a fixed one if it is worse by less than this."""

COLOURS = {(5, 1): "#0072b2", (5, 5): "#d55e00", (20, 1): "#009e73"}
BLUES = ("#b3cde3", "#8bb8d8", "#5a9bcb", "#2f7ab8", "#0b4f8a")
RED, GREY = "#d55e00", "#8a8f96"


def _learned(result: Figure5, ways: int, shots: int) -> HorizonRow | None:
    """Return the row of these tasks whose T starts small."""
    found = (row for row in result.learned if (row.ways, row.shots, row.name) == (ways, shots, FROM_SMALL))
    return next(found, None)


def facts(result: Figure5) -> tuple[Fact, ...]:
    """Return what the paper says of T (E.3), judged."""
    return tuple(_facts(result))


def _facts(result: Figure5) -> Iterator[Fact]:
    one, five, harder = (_learned(result, *key) for key in ((5, 1), (5, 5), (20, 1)))
    if one and harder:
        claim = (
            "T is longer on harder data; here on harder tasks of the same data, of 20 ways instead of 5, and T by the "
            "number of ways, since each class has that share of the mean loss."
        )
        yield _longer(claim, harder, one, per_way=True)
    if one and five:
        yield _longer("T is shorter for 1 shot than for 5.", five, one)
    learned, fixed = result.compared[0], [row for row in result.compared[1:] if row.difference is not None]
    if learned.accuracy is None or not fixed:
        return
    best = max(fixed, key=lambda row: row.difference.mean if row.difference else 0.0)
    sign = None if best.difference is None else sign_of(best.difference, AS_GOOD)
    yield judged(
        "A learned T is as accurate as the best fixed T.",
        None if sign is None else sign == -1,
        f"the best fixed T, {best.fixed:g}, minus the learned one is {in_percent(best.difference, '+')} points; as "
        f"accurate is less than {100 * AS_GOOD:g} behind.",
    )
    longest = fixed[-1]
    saved = [sum(a) / max(sum(b), 1) for a, b in zip(longest.solver_steps, learned.solver_steps, strict=True)]
    yield judged(
        "Learning T from a small start saves computation against a long fixed T.",
        True if min(saved) > 1 else False if max(saved) < 1 else None,
        f"T = {longest.fixed:g} takes {min(saved):.2f} to {max(saved):.2f} times the solver steps of the learned T, "
        f"over seeds, and {longest.seconds / learned.seconds:.2f} times the time. T = {best.fixed:g}, the best, takes "
        f"{best.total_steps / learned.total_steps:.2f} times the steps and {best.seconds / learned.seconds:.2f} times "
        "the time.",
    )
    yield _soonest(learned, fixed, result.wanted)


def _soonest(learned: HorizonRow, fixed: list[HorizonRow], wanted: float) -> Fact:
    ours = math.inf if learned.seconds_to_accuracy is None else learned.seconds_to_accuracy
    theirs = min((row.seconds_to_accuracy for row in fixed if row.seconds_to_accuracy is not None), default=math.inf)
    # It is known only from one look to the next.
    look = learned.seconds / max(len(learned.looks), 1)
    holds = True if ours + look < theirs else False if ours - look > theirs else None
    words = "; ".join(f"T = {row.fixed:g} {_seconds(row)}" for row in fixed)
    return judged(
        "A learned T comes to an accuracy sooner than every fixed one.",
        holds,
        f"to {100 * wanted:.1f} % the learned T comes {_seconds(learned)}; {words}. What differs by less than "
        f"{look:.1f} s, the time from one look at validation tasks to the next, is undecided.",
    )


def _seconds(row: HorizonRow) -> str:
    return "not at all" if row.seconds_to_accuracy is None else f"in {row.seconds_to_accuracy:.1f} s"


def _longer(claim: str, long: HorizonRow, short: HorizonRow, per_way: bool = False) -> Fact:
    """Judge whether T is longer; of a single seed nothing is concluded."""
    a, b = (tuple(x / (row.ways if per_way else 1) for x in row.last_horizons) for row in (long, short))
    what = "T by the number of ways" if per_way else "T"
    if min(len(a), len(b)) < 2:
        return judged(claim, None, "there are not two seeds of each.")
    holds = True if min(a) > max(b) else False if max(a) < min(b) else None
    words = [f"{row.ways}-way {row.shots}-shot {_range(x)}" for row, x in ((long, a), (short, b))]
    return judged(claim, holds, f"at the end of training {what} is, over seeds: {'; '.join(words)}.")


def _range(values: tuple[float, ...]) -> str:
    return " to ".join(f"{value:.3g}" for value in sorted({min(values), max(values)}))


# What is drawn


def draw(result: Figure5) -> Figure:
    """Return the picture: T during meta-training; accuracy by T; accuracy by the solver steps spent."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 4.0), layout="constrained")
        evolution, accuracy, cost = figure.subplots(1, 3)
        _draw_evolution(evolution, result)
        _draw_accuracy(accuracy, result)
        _draw_cost(cost, result)
    return figure


def _draw_evolution(axes: Axes, result: Figure5) -> None:
    for row in result.learned:
        small = row.name == FROM_SMALL
        style: dict[str, Any] = {
            "color": COLOURS.get((row.ways, row.shots), GREY),
            "linestyle": "-" if small else (0, (4, 1.5)),
        }
        for number, run in enumerate(row.horizons):
            label = f"{row.ways}-way {row.shots}-shot{'' if small else ', as in Table 2'}" if number == 0 else None
            axes.plot(np.linspace(0, 1, len(run)), run, **style, linewidth=1.1, label=label)
    axes.set(yscale="log", xlabel="meta-training", ylabel="horizon $T$", title="(a) T is learned; a line is a seed")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _draw_accuracy(axes: Axes, result: Figure5) -> None:
    """Draw the error by T: above some T accuracies differ by less than a line is wide."""
    learned = result.compared[0]
    for row in result.compared:
        if row.accuracy is None:
            continue
        colour = RED if row.fixed is None else BLUES[3]
        where = float(np.exp(np.mean(np.log(row.last_horizons))))
        axes.errorbar(where, 100 * (1 - row.accuracy.mean), yerr=100 * row.accuracy.ci95, color=colour, marker="o",
                      markersize=4, capsize=2)  # fmt: skip
        errors = [100 * (1 - accuracy) for accuracy in row.accuracy.of_seeds]
        axes.plot(row.last_horizons, errors, ".", color=colour, alpha=0.5, markersize=5)
    if learned.accuracy is not None:
        axes.axhline(100 * (1 - learned.accuracy.mean), color=RED, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="horizon $T$ at the end", ylabel="test error, %")
    axes.set_title(f"(b) Learned (red) and fixed T, 5-way {result.shots}-shot")
    _plain_percents(axes)


def _draw_cost(axes: Axes, result: Figure5) -> None:
    for number, row in enumerate(result.compared):
        # A training that diverged has fewer updates and looks than the others.
        updates, looks = min(map(len, row.solver_steps)), min(map(len, row.validation))
        if not updates or not looks:
            continue
        steps = np.mean([np.cumsum(run[:updates]) for run in row.solver_steps], axis=0)
        errors = 100 * (1 - np.mean([run[:looks] for run in row.validation], axis=0))
        colour = RED if row.fixed is None else BLUES[number - 1]
        places = [steps[min(update, len(steps)) - 1] for update in row.looks[:looks]]
        label = "learned" if row.fixed is None else f"T = {row.fixed:g}"
        axes.plot(places, errors, color=colour, marker="o", markersize=2.5, label=label,
                  zorder=3 if row.fixed is None else 2)  # fmt: skip
    axes.set(
        yscale="log", xlabel="solver steps so far", ylabel="validation error, %", title="(c) Error by solver steps"
    )
    _plain_percents(axes)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def _plain_percents(axes: Axes) -> None:
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_ylim(max(axes.get_ylim()[0], 0.5), 100)


# What is written and printed


def numbers(result: Figure5) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers("figure5", result, facts(result))


def restore(content: Mapping[str, Any]) -> Figure5:
    """Return a result from its `numbers`."""
    return from_numbers(content, Figure5)


def describe(result: Figure5) -> str:
    """Return the tables and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Figure5) -> Iterator[Table]:
    """Yield T at the beginning, half-way and at the end; and the comparison with fixed horizons."""
    header = ["tasks", "T", "first T", "half-way", "last T, over seeds", "accuracy, %"]
    body = [
        [
            f"{row.ways}-way {row.shots}-shot",
            row.name,
            f"{row.horizons[0][0]:.3g}",
            f"{float(np.mean([run[len(run) // 2] for run in row.horizons])):.3g}",
            _range(row.last_horizons),
            in_percent(row.accuracy),
        ]
        for row in result.learned
    ]
    yield f"T during meta-training on {result.data}, {result.updates:,} updates", [header, *body]
    reached = f"to {100 * result.wanted:.1f} %"
    header = ["T", "accuracy, %", "minus learned, %", "solver steps", "seconds"]
    header += [f"updates {reached}", f"steps {reached}", f"seconds {reached}"]
    body = [
        [
            row.name,
            in_percent(row.accuracy),
            "" if row.difference is None else in_percent(row.difference, "+"),
            f"{row.total_steps:,.0f}",
            f"{row.seconds:.1f}",
            *("never" if x is None else f"{x:,.0f}" for x in (row.updates_to_accuracy, row.steps_to_accuracy)),
            "never" if row.seconds_to_accuracy is None else f"{row.seconds_to_accuracy:.1f}",
        ]
        for row in result.compared
    ]
    yield f"5-way {result.shots}-shot: a learned T against fixed ones, {result.tasks} test tasks", [header, *body]
    cost = result.cost
    header = ["T", "solver steps", "ms/update"]
    body = [
        [f"{horizon:g}", str(steps), f"{ms:.1f}"]
        for horizon, steps, ms in zip(cost.horizons, cost.solver_steps, cost.ms, strict=True)
    ]
    yield "Time of an update, in turns, before training", [header, *body]


def write(result: Figure5, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "figure5")
    explanation = (
        f"<p>COMLN with {result.filters} channels, trained for {result.updates:,} updates with seeds "
        f"{', '.join(map(str, result.seeds))}. In (a) T starts at 1 and log T moves by up to 0.1 an update, the "
        "paper's step, or it starts at 10 and moves by up to 0.01, as in Table 2, where the schedule limits how far "
        "it comes. The steps fall to zero by a cosine, and T comes to rest for that reason too. In (b) and (c) the "
        "network is trained with a T that stays as it is, for five of them, or with one "
        "that is learned from 1. Solver steps are those of the longest task of an update. Seconds are steps and "
        "updates at the times of the last table, which were measured in turns. "
        f"{how_to_read(result.data, result.budget)}</p>{as_html(facts(result))}"
    )
    title = title_of("Figure 5: a T that is learned", result.data)
    command = f"figure5 --budget {result.budget}" + ("" if result.data == "glyphs" else f" --data {result.data}")
    page = Page(title, svg, explanation, tables(result), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
