r"""Table 1: the memory that each way to the meta-gradient takes, as the paper's order of magnitude and as measured.

The theory is the expression inside $\mathcal{O}(\cdot)$, in numbers of single precision; with $M$ support examples, $N$
ways, $d$ features, $n$ steps and $|\theta|$ adapted weights. For `SpanAdjoint` it is the states that are kept, at most
256 of $MN$ numbers, and the Gram matrix.
"""

__all__ = ["FILES", "Row", "Table1", "compute", "describe", "draw", "note", "numbers", "restore", "tables", "write"]

import functools
import html
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.episode import Episode, Examples
from comln.learners import MAML
from comln.learners.whole_network import WholeNetwork
from comln.recipes.backbones import BackboneConfig, Conv4Config, ResNet12Config
from comln.reproduce.measure import environment, temporary_bytes
from comln.reproduce.meta_gradient_programs import CHANNELS, METHODS, Method, head_program, whole_program
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.quantities import in_bytes, three_digits
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter

FILES = ("table1.json", "table1.svg", "table1.png", "index.html")
"""What `write` writes."""

BYTES = 4
KEPT_STATES = 256
QUERIES = 15


@dataclass(frozen=True)
class Size:
    """A task and its network."""

    name: str
    network: BackboneConfig
    image_size: int
    ways: int
    shots: int

    @property
    def support(self) -> int:
        """Support examples, M."""
        return self.ways * self.shots


@dataclass(frozen=True)
class Counts:
    """What the theory depends on: M, N, d, adapted weights, and inner steps."""

    support: int
    ways: int
    features: int
    weights: int
    steps: int


@dataclass(frozen=True)
class Line:
    """A row of the paper's table, or ours.

    - `method`: by its name in `METHODS`.
    - `title`, `order`: in words. `exact`, `whole_network`: as the paper has it.
    """

    method: str
    title: str
    order: str
    exact: bool
    whole_network: bool

    def theory(self, counts: Counts) -> int:
        """Return the numbers that the order of magnitude comes to."""
        m, n, d = counts.support, counts.ways, counts.features
        match self.method:
            case "maml":
                return counts.weights * counts.steps
            case "anil":
                return n * d * counts.steps
            case "checkpointed-maml":
                return round(counts.weights * math.sqrt(counts.steps))
            case "imaml":
                return counts.weights
            case "comln-naive":
                return n**2 * d**2 + m * n * d**2
            case "comln-rk":
                return m**2 * n**2 + m**3 * n
            case _:
                return KEPT_STATES * m * n + m**2


LINES = (
    Line("maml", "MAML", "|θ| n", True, True),
    Line("anil", "ANIL", "N d n", True, False),
    Line("checkpointed-maml", "Checkpoints every √n steps", "|θ| √n", True, True),
    Line("imaml", "iMAML", "|θ|", False, True),
    Line("comln-naive", "Forward sensitivity, naive", "N²d² + M N d²", True, False),
    Line("comln-rk", "COMLN", "M²N² + M³N", True, False),
    Line("comln-span", "COMLN, SpanAdjoint (ours)", "M N × 256 + M²", True, False),
)


@dataclass(frozen=True)
class Spending:
    """What a budget buys: two sizes, and two numbers of steps."""

    sizes: tuple[Size, Size]
    steps: tuple[int, int]


CONV4 = Size("Conv-4, 5-way 1-shot", Conv4Config(64), 84, 5, 1)
RESNET12 = Size("ResNet-12, 5-way 5-shot", ResNet12Config(), 84, 5, 5)
SPENDING = {
    Budget.SMOKE: Spending(
        (
            Size("Conv-4 of 4 channels, 5-way 1-shot", Conv4Config(4), 28, 5, 1),
            Size("Conv-4 of 8 channels, 5-way 5-shot", Conv4Config(8), 28, 5, 5),
        ),
        (16, 64),
    ),
    Budget.COMMITTED: Spending((CONV4, RESNET12), (100, 1000)),
    Budget.FULL: Spending((CONV4, RESNET12), (100, 10_000)),
}


@dataclass(frozen=True)
class Row:
    """One method at one size.

    - `theory_bytes`, `measured_bytes`: at the smaller and the larger number of steps.
    """

    size: str
    method: str
    theory_bytes: tuple[int, int]
    measured_bytes: tuple[int, int]


@dataclass(frozen=True)
class Table1:
    """All methods at both sizes."""

    budget: Budget
    spending: Spending
    counts: dict[str, Counts]
    rows: tuple[Row, ...]
    environment: dict[str, Any]

    def growth(self, row: Row) -> float:
        r"""Return the power of the number of steps with which the measured memory of a row grows, $0$ where flat."""
        few, many = self.spending.steps
        return math.log(row.measured_bytes[1] / row.measured_bytes[0]) / math.log(many / few)


def compute(work: Workspace) -> Table1:
    """Compile what was not compiled yet, in single precision. Nothing is run."""
    with jax.enable_x64(False):
        return _compute(work)


def _compute(work: Workspace) -> Table1:
    spending, where = SPENDING[work.budget], environment()
    cells = [(size, line, steps) for size in spending.sizes for line in LINES for steps in spending.steps]
    measured: dict[tuple[str, str], list[int]] = {}
    for number, (size, line, steps) in enumerate(cells):
        method = METHODS[line.method]
        work.on_progress(f"{line.title}, {size.name}, {steps:,} steps", number / len(cells))
        steps = spending.steps[0] if method.fixed_program else steps
        configuration = {
            "size": converter.unstructure(size),
            "method": line.method,
            "steps": None if method.fixed_program else steps,
            "device": where["device"],
            "versions": {name: where["versions"][name] for name in ("comln", "jax", "jaxlib")},
        }
        name = f"{spending.sizes.index(size)}-{line.method}" + ("" if method.fixed_program else f"-{steps}")
        compile_one = functools.partial(_compile, method, size, steps)
        measured.setdefault((size.name, line.method), []).append(work.kept(name, configuration, compile_one))
    counts = {size.name: _counts(size) for size in spending.sizes}
    rows = [_row(counts[name], spending.steps, name, method, values) for (name, method), values in measured.items()]
    return Table1(work.budget, spending, counts, tuple(rows), where)


def _row(counts: Counts, steps: tuple[int, int], size: str, method: str, measured: list[int]) -> Row:
    line = next(line for line in LINES if line.method == method)
    few, many = (
        BYTES * line.theory(Counts(counts.support, counts.ways, counts.features, counts.weights, n)) for n in steps
    )
    return Row(size, method, (few, many), (measured[0], measured[1]))


def _counts(size: Size) -> Counts:
    def adapted() -> WholeNetwork:
        learner = METHODS["maml"].build(size.network, size.image_size, size.ways, 1)
        assert isinstance(learner, MAML)
        return learner.network.split()[0]

    weights = eqx.filter_eval_shape(adapted)
    count = sum(leaf.size for leaf in jax.tree.leaves(weights))
    return Counts(size.support, size.ways, weights.linear.weights.shape[1], count, 1)


def _compile(method: Method, size: Size, steps: int) -> int:
    """Return the compiler's figure: for methods that adapt the whole network of the whole, for others of the head."""
    if method.whole_network:
        example = (size.image_size, size.image_size, CHANNELS)
        learner = eqx.filter_eval_shape(method.build, size.network, size.image_size, size.ways, steps)
        return temporary_bytes(whole_program(learner, _task(size, example)).compile())
    features = _counts(size).features
    learner = method.build_head(features, size.ways, steps)
    return temporary_bytes(head_program(learner, _task(size, (features,))).compile())


def _task(size: Size, example: tuple[int, ...]) -> Episode:
    """Return the shapes of a task."""

    def task() -> Episode:
        def examples(count: int) -> Examples:
            shapes = (count, *example), (count, size.ways), (count,)
            return Examples(*(jnp.zeros(shape, jnp.float32) for shape in shapes))

        return Episode(examples(size.support), examples(size.ways * QUERIES))

    return eqx.filter_eval_shape(task)


# What is written and printed


def draw(result: Table1) -> Figure:
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


def numbers(result: Table1) -> dict[str, Any]:
    """Return the numbers as JSON can hold them."""
    rows = [asdict(row) | {"growth": round(result.growth(row), 3)} for row in result.rows]
    return {"target": "table1", **converter.unstructure(result, Table1), "rows": rows}


def restore(content: dict[str, Any]) -> Table1:
    """Return a result from its numbers as they are in JSON."""
    rows = [{name: value for name, value in row.items() if name != "growth"} for row in content["rows"]]
    named = {name: value for name, value in content.items() if name != "target"}
    return converter.structure(named | {"rows": rows}, Table1)


def tables(result: Table1) -> Iterator[Table]:
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


def note() -> str:
    """Return how the numbers came about."""
    return (
        "Memory to the meta-gradient of one task by the compiler's figure, besides arguments and results, in single "
        "precision; programs are compiled, not run. Methods that adapt the whole network start from images, the others "
        "from embeddings. Theory is the expression of the paper in numbers of four bytes; for our SpanAdjoint, which "
        "is not in the paper, it is the 256 states that are kept at most, and the Gram matrix. Where measured is far "
        "above theory, theory leaves out what is not small: a network's intermediate features in each step of MAML and "
        "in iMAML's one pass, and the stages of a Runge-Kutta step of COMLN."
    )


def describe(result: Table1) -> str:
    """Return the tables as text."""
    return as_text(tables(result))


def write(result: Table1, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "table1")
    explanation = f"<p>{html.escape(note())}</p>"
    title = "Table 1: memory of the meta-gradient, in theory and measured"
    page = Page(title, svg, explanation, tables(result), f"table1 --budget {result.budget}")
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
