"""The picture, the tables and the page of Figures 3 and 4."""

__all__ = ["describe", "draw", "note", "numbers", "restore", "tables", "write"]

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.reproduce.efficiency import NAMES, PAPER_BYTES, Cell, Efficiency, Limit
from comln.reproduce.efficiency_facts import facts
from comln.reproduce.extrapolation import Estimate
from comln.reproduce.facts import as_html, as_lines
from comln.reproduce.meta_gradient_programs import METHODS, STEP
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.quantities import in_bytes, in_time, three_digits

COLOURS = {
    "maml": "#999999",
    "anil": "#0072b2",
    "checkpointed-anil": "#56b4e9",
    "imaml": "#cc79a7",
    "comln-euler": "#e69f00",
    "comln-rk": "#d55e00",
    "comln-span": "#009e73",
}
MARKERS = {
    "maml": "s",
    "anil": "o",
    "checkpointed-anil": "v",
    "imaml": "^",
    "comln-euler": "D",
    "comln-rk": "h",
    "comln-span": "*",
}
GREY = "#8a8f96"
FARTHEST = 30
"""Times the largest number that was measured, a line is drawn."""

CLOSE = 1.6
"""Up to this ratio, two lines leave no room for words between them."""


def draw(result: Efficiency) -> Figure:
    """Return the picture: memory and time of the whole as in the paper, and below of the head alone."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.0, 7.6), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        _panel(panels[0, 0], result, lambda cell: cell.memory, 1e6)
        _panel(panels[0, 1], result, lambda cell: cell.time_ms, 1e3)
        _panel(panels[1, 0], result, lambda cell: cell.head_memory, 1e6)
        _panel(panels[1, 1], result, lambda cell: cell.head_time_ms, 1e3)
        _limits(panels[0, 0], result)
        panels[0, 0].set(title="(a) Memory, network included", ylabel="memory, MB")
        panels[0, 1].set(title="(b) Time, network included", ylabel="time, s")
        panels[1, 0].set(title="(c) Memory, head alone", ylabel="memory, MB")
        panels[1, 1].set(title="(d) Time, head alone", ylabel="time, s")
        for axes in panels[1]:
            axes.set_xlabel(f"inner steps $n$ ($T = {STEP:g}\\,n$)")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _panel(axes: Axes, result: Efficiency, of: Callable[[Cell], Estimate | None], unit: float) -> None:
    """Draw a line for each method: solid between numbers that were measured, dashed on to others.

    A cross is where it is too large to be run for the first time.
    """
    measured: list[float] = []
    too_large: list[tuple[int, float]] = []
    for number, name in enumerate(NAMES):
        points = [(cell.steps, estimate) for cell in result.of(name) if (estimate := of(cell)) is not None]
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": 1.6}
        # Smaller ones later, so that where lines coincide all markers are seen.
        marker = {"marker": MARKERS[name], "markersize": 6.5 - 0.45 * number}
        solid = [(steps, estimate.value / unit) for steps, estimate in points if estimate.measured]
        measured += [value for _, value in solid]
        axes.plot(*_columns(solid), **style, **marker, label=METHODS[name].title)
        if len(solid) < len(points):
            rest = [(steps, estimate.value / unit) for steps, estimate in points if not estimate.measured]
            axes.plot(*_columns([*solid[-1:], *rest]), **style, linestyle="--", alpha=0.8)
        first = next((cell for cell in result.of(name) if cell.limit is Limit.MEMORY), None)
        if first is not None and (estimate := of(first)) is not None:
            too_large.append((first.steps, estimate.value / unit))
    axes.plot(*_columns(too_large), "x", color="black", markersize=8, label="out of memory here")
    axes.set(xscale="log", yscale="log")
    # Lines that go on far above all that was measured leave the picture.
    axes.set_ylim(top=min(axes.get_ylim()[1], FARTHEST * max(measured)))
    axes.grid(color="#8a8f9630", linewidth=0.6)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [steps for steps, _ in points], [value for _, value in points]


def _limits(axes: Axes, result: Efficiency) -> None:
    """Draw the memory of this machine and of the paper's."""
    limits = sorted([(PAPER_BYTES, "32 GiB, the paper's GPU"), (result.limit_bytes, "most that is run here")])
    close = limits[1][0] < CLOSE * limits[0][0]
    for (count, text), away in zip(limits, (-9 if close else 3, 3), strict=True):
        axes.axhline(count / 1e6, color=GREY, linewidth=0.9, linestyle=":")
        axes.annotate(
            text,
            (0.55, count / 1e6),
            xycoords=("axes fraction", "data"),
            xytext=(0, away),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            color=GREY,
        )


# What is written and printed


def numbers(result: Efficiency, target: str) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers(target, result, facts(result))


def restore(content: Mapping[str, Any]) -> Efficiency:
    """Return a result from its `numbers`."""
    return from_numbers(content, Efficiency)


def tables(result: Efficiency) -> Iterator[Table]:
    """Yield memory and time, of the whole and of the head alone; what was not measured has a `~` before it."""
    with_a_head = [name for name in NAMES if not METHODS[name].whole_network]
    columns: list[tuple[str, Sequence[str], Callable[[Cell], Estimate | None], Callable[[float], str]]] = [
        ("Memory, network included", NAMES, lambda cell: cell.memory, in_bytes),
        ("Time, network included", NAMES, lambda cell: cell.time_ms, in_time),
        ("Memory, head alone", with_a_head, lambda cell: cell.head_memory, in_bytes),
        ("Time, head alone", with_a_head, lambda cell: cell.head_time_ms, in_time),
    ]
    shown = [steps for steps in result.spending.steps if str(steps).strip("0") == "1"]
    for title, names, of, words in columns:
        rows = [["method", *(f"n = {steps:,}" for steps in shown)]]
        for name in names:
            found = {cell.steps: of(cell) for cell in result.of(name)}
            rows.append([METHODS[name].title, *(_words(found.get(steps), words) for steps in shown)])
        yield title, rows
    yield _whole_in_turns(result)


def _words(estimate: Estimate | None, words: Callable[[float], str]) -> str:
    return "" if estimate is None else f"{'' if estimate.measured else '~'}{words(estimate.value)}"


def _whole_in_turns(result: Efficiency) -> Table:
    """Return how whole programs compare with the sum of network and head, which stands for them above."""
    turns = result.turns
    rows = [["method", "whole", "its quartiles", "network + head", "ratio"]]
    for name, whole in turns.whole.items():
        together = turns.network.median_ms + turns.heads[name].median_ms
        ratio = three_digits(whole.median_ms / together)
        quartiles = " to ".join(map(in_time, whole.quartiles_ms))
        rows.append([METHODS[name].title, in_time(whole.median_ms), quartiles, in_time(together), ratio])
    return f"Whole programs at {turns.steps:,} steps, and the sum of their parts", rows


def note(result: Efficiency) -> str:
    """Return how the numbers came about."""
    spending = result.spending
    return (
        "One task of glyphs, 5 ways, 5 support and 15 query examples a class, enlarged to "
        f"{spending.image_size} x {spending.image_size} pixels; an untrained network, {result.features:,} features, "
        f"single precision, steps of {STEP:g} or time T = {STEP:g} n. Memory is the compiler's figure besides "
        "arguments and results; times are medians. The time of methods that adapt a head "
        f"alone is that of their head and of the network, {in_time(result.network.median_ms)}, measured apart. A ~ "
        "marks what was not measured but extrapolated along a line, or in proportion where there is one number, which "
        f"is more than it would be: programs of more than {in_bytes(result.limit_bytes)} are not run, nor those that "
        f"are expected to take more than {spending.longest_s:g} s. No time is told where no fewer steps were run. "
        f"Of programs of more than {in_bytes(max(PAPER_BYTES, result.limit_bytes))} only each method's smallest is "
        "compiled, and where memory has stopped growing only that of most steps."
    )


def describe(result: Efficiency) -> str:
    """Return the tables and the claims as text."""
    return "\n".join([as_text(tables(result)), "", *as_lines(facts(result))])


def write(result: Efficiency, folder: Path, target: str, title: str, files: Sequence[str]) -> list[Path]:
    """Write the `files` into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), target)
    explanation = (
        f"<p>{html.escape(note(result))} Lines are dashed there, and a cross is where a "
        f"method first takes too much.</p>{METHODS_EXPLAINED}{as_html(facts(result))}"
    )
    page = Page(title, svg, explanation, tables(result), f"{target} --budget {result.budget}")
    contents = (
        as_json(numbers(result, target)),
        svg.encode(),
        png,
        page.html(result.environment).encode(),
    )
    return write_files(folder, dict(zip(files, contents, strict=True)))


METHODS_EXPLAINED = """
<p>MAML and iMAML adapt the whole network, with convolutions that can be differentiated twice; iMAML solves its linear
system by five conjugate gradients. ANIL keeps every step for the way back, or every √n-th (checkpoints). COMLN with
Euler and with RK (Dormand and Prince) carries sensitivities forward, as the paper does; SpanAdjoint is our reverse
mode. That the adjoint method of Neural ODEs is unstable here is shown by <code>comln reproduce figure2</code>.</p>
"""
