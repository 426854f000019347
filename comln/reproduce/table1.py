"""Table 1: the memory that each way to the meta-gradient takes, in theory and measured, with the claims judged."""

__all__ = [
    "FILES",
    "SPENDING",
    "compute",
    "describe",
    "draw",
    "facts",
    "note",
    "numbers",
    "restore",
    "tables",
    "write",
]

import html
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.recipes.backbones import Conv4Config, ResNet12Config
from comln.reproduce import memory_orders
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.memory_orders import LINES, SMALL, Orders, Row, Size, Spending
from comln.reproduce.meta_gradient_programs import METHODS
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.quantities import in_bytes, three_digits
from comln.reproduce.workspace import Budget, Workspace

FILES = ("table1.json", "table1.svg", "table1.png", "index.html")
"""What `write` writes."""

CONV4 = Size("Conv-4, 5-way 1-shot", Conv4Config(64), 84, 5, 1)
RESNET12 = Size("ResNet-12, 5-way 5-shot", ResNet12Config(), 84, 5, 5)

SPENDING = {
    Budget.SMOKE: Spending(
        (
            SMALL,
            Size("Conv-4 of 8 channels, 5-way 5-shot", Conv4Config(8), 28, 5, 5),
        ),
        (16, 64),
        (10,),
    ),
    Budget.COMMITTED: Spending((CONV4, RESNET12), (100, 1000), (1, 10, 100)),
    Budget.FULL: Spending((CONV4, RESNET12), (100, 10_000), (1, 10, 100, 1000)),
}
"""By budget."""

POWER = 0.1
"""By so much a measured power of the number of steps may differ from the theory's."""

INEXACT = 0.01
"""From this relative error on, a gradient is not exact; errors of single precision are far below."""


def compute(work: Workspace) -> Orders:
    """Compile what was not compiled yet."""
    return memory_orders.compute(work, SPENDING[work.budget])


# What is concluded


def facts(result: Orders) -> tuple[Fact, ...]:
    """Return the paper's claims of section 4.2."""
    off = [
        f"{METHODS[row.method].title} grows as n^{grown:.2f} and not n^{expected:.2f} at {row.size}"
        for row in result.rows
        if abs((grown := result.growth(row)) - (expected := result.theoretical_growth(row))) > POWER
    ]
    ratios = {}
    for size in result.spending.sizes:
        naive, comln = (result.row(size.name, name).measured_bytes[1] for name in ("comln-naive", "comln-rk"))
        ratios[size.name] = naive / comln
    less = [f"{three_digits(ratio)} times less at {size}" for size, ratio in ratios.items()]
    errors = [f"{100 * error.relative:.0f} % off at n = {error.steps:,}" for error in result.imaml]
    return (
        judged(
            "Memory grows with the number of steps as the orders of magnitude say.",
            not off,
            f"{'; '.join(off) or f'no power of n differs by more than {POWER:g}'}.",
        ),
        judged(
            "Decomposed sensitivities take less memory than whole Jacobians.",
            min(ratios.values()) > 1,
            f"they take {'; '.join(less)}.",
        ),
        judged(
            "iMAML's meta-gradient is not exact.",
            max(error.relative for error in result.imaml) > INEXACT,
            f"with a small network, it is {'; '.join(errors)}.",
        ),
    )


# What is written and printed


def draw(result: Orders) -> Figure:
    """Return the picture: theory and measurement of each method, a panel for each size."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.9), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, size in zip(panels, result.spending.sizes, strict=True):
            _panel(axes, [row for row in result.rows if row.size == size.name], size.name)
        panels[0].set_yticks(range(len(LINES)), [line.title for line in LINES])
        panels[0].invert_yaxis()
        few, many = result.spending.steps
        theory, measured = panels[0].get_legend_handles_labels()[0][:2]
        labels = [f"theory, {few:,} to {many:,} steps", f"measured, {few:,} to {many:,} steps"]
        figure.legend([theory, measured], labels, loc="outside lower center", ncols=2)
    return figure


def _panel(axes: Axes, rows: list[Row], title: str) -> None:
    for place, row in enumerate(rows):
        for values, colour, shift in (
            (row.theory_bytes, "#0072b2", -0.14),
            (row.measured_bytes, "#d55e00", 0.14),
        ):
            axes.plot([x / 1e6 for x in values], [place + shift] * 2, "o-", color=colour, markersize=5, label="both")
    axes.set(xscale="log", xlabel="memory, MB", title=title)
    axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)


def numbers(result: Orders) -> dict[str, Any]:
    """Return the numbers as JSON can hold them."""
    rows = [asdict(row) | {"growth": round(result.growth(row), 3)} for row in result.rows]
    return as_numbers("table1", result, facts(result)) | {"rows": rows}


def restore(content: dict[str, Any]) -> Orders:
    """Return a result from its numbers as they are in JSON."""
    rows = [{name: value for name, value in row.items() if name != "growth"} for row in content["rows"]]
    return from_numbers(content | {"rows": rows}, Orders)


def tables(result: Orders) -> Iterator[Table]:
    """Yield a table for each size."""
    few, many = result.spending.steps
    header = ["method", "exact", "whole network", "O()", f"theory, n = {few:,}", "measured"]
    header += [f"theory, n = {many:,}", "measured", "measured / theory", "grows as"]
    by_method = {line.method: line for line in LINES}
    for size in result.spending.sizes:
        body = []
        for row in (row for row in result.rows if row.size == size.name):
            line = by_method[row.method]
            ratio = row.measured_bytes[1] / row.theory_bytes[1]
            body.append(
                [
                    line.title,
                    "yes" if line.exact else "no",
                    "yes" if line.whole_network else "no",
                    line.order,
                    in_bytes(row.theory_bytes[0]),
                    in_bytes(row.measured_bytes[0]),
                    in_bytes(row.theory_bytes[1]),
                    in_bytes(row.measured_bytes[1]),
                    three_digits(ratio),
                    f"n^{round(result.growth(row), 2) + 0.0:.2f}",
                ]
            )
        counts = result.counts[size.name]
        title = (
            f"{size.name}: M = {counts.support}, N = {counts.ways}, d = {counts.features:,}, |θ| = {counts.weights:,}"
        )
        yield title, [header, *body]
    body = [[f"{error.steps:,}", three_digits(error.relative), f"{error.cosine:.3f}"] for error in result.imaml]
    yield f"iMAML's gradient, {SMALL.name}", [["inner steps", "relative error", "cosine with the exact one"], *body]


def note() -> str:
    """Return how the numbers came about."""
    return (
        "Memory to the meta-gradient of one task by the compiler's figure, besides arguments and results, in single "
        "precision; these programs are compiled, not run. Methods that adapt the whole network start from images, the "
        "others from embeddings. COMLN has one program for every T. Theory is the expression of the paper in numbers "
        "of four bytes; for our SpanAdjoint, which is not in the paper, it is the 256 states that are kept at most, "
        "and the Gram matrix. Where measured is far above theory, theory leaves out what is not small: a network's "
        "intermediate features in each step of MAML and in iMAML's one pass, and the stages of a Runge-Kutta step of "
        "COMLN and the gradients in its embeddings. iMAML's gradient is compared with the one through all of its own "
        "steps."
    )


def describe(result: Orders) -> str:
    """Return the tables as text."""
    return "\n".join([as_text(tables(result)), "", *as_lines(facts(result))])


def write(result: Orders, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "table1")
    explanation = f"<p>{html.escape(note())}</p>{as_html(facts(result))}"
    title = "Table 1: memory of the meta-gradient, in theory and measured"
    page = Page(title, svg, explanation, tables(result), f"table1 --budget {result.budget}")
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
