r"""The memory that each way to the meta-gradient takes, as an order of magnitude and as the compiler says: Table 1.

The theory is the expression inside $\mathcal{O}(\cdot)$, in numbers of single precision; with $M$ support examples, $N$
ways, $d$ features, $n$ steps and $|\theta|$ adapted weights. For `SpanAdjoint` it is the states that are kept, at most
256 of $MN$ numbers, and the Gram matrix. Of iMAML, the one way that the paper calls inexact, it is also measured by how
much.
"""

__all__ = ["LINES", "SMALL", "Counts", "Line", "Orders", "Row", "Size", "Spending", "compute"]

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.episode import Episode, Examples
from comln.learners import IMAML, MAML
from comln.learners.whole_network import WholeNetwork
from comln.recipes.backbones import BackboneConfig, Conv4Config
from comln.reproduce.implicit_error import GradientError, gradient_error
from comln.reproduce.measure import temporary_bytes
from comln.reproduce.meta_gradient_programs import (
    CHANNELS,
    METHODS,
    Method,
    head_program,
    images_of_task,
    whole_program,
)
from comln.reproduce.programs import forget_programs
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter

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
    - `theory`: the numbers that the order of magnitude comes to.
    """

    method: str
    title: str
    order: str
    exact: bool
    whole_network: bool
    theory: Callable[[Counts], float | int]


LINES = (
    Line("maml", "MAML", "|θ| n", True, True, lambda c: c.weights * c.steps),
    Line("anil", "ANIL", "N d n", True, False, lambda c: c.ways * c.features * c.steps),
    Line(
        "checkpointed-maml",
        "Checkpoints every √n steps",
        "|θ| √n",
        True,
        True,
        lambda c: c.weights * math.sqrt(c.steps),
    ),
    Line("imaml", "iMAML", "|θ|", False, True, lambda c: c.weights),
    Line(
        "comln-naive",
        "Forward sensitivity, naive",
        "N²d² + M N d²",
        True,
        False,
        lambda c: (c.ways**2 + c.support * c.ways) * c.features**2,
    ),
    Line(
        "comln-rk",
        "COMLN",
        "M²N² + M³N",
        True,
        False,
        lambda c: c.support**2 * c.ways**2 + c.support**3 * c.ways,
    ),
    Line(
        "comln-span",
        "COMLN, SpanAdjoint (ours)",
        "M N × 256 + M²",
        True,
        False,
        lambda c: KEPT_STATES * c.support * c.ways + c.support**2,
    ),
)
"""The rows of the paper's table, and ours."""


@dataclass(frozen=True)
class Spending:
    """What a budget buys.

    - `sizes`, `steps`: what memory is compared at.
    - `imaml_steps`: after which iMAML's gradient is compared with the exact one, by the network of `SMALL`.
    """

    sizes: tuple[Size, Size]
    steps: tuple[int, int]
    imaml_steps: tuple[int, ...]


SMALL = Size("Conv-4 of 4 channels, 5-way 1-shot", Conv4Config(4), 28, 5, 1)
"""The only size that is run."""


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
class Orders:
    """All methods at both sizes, and how exact iMAML is."""

    budget: Budget
    spending: Spending
    counts: dict[str, Counts]
    rows: tuple[Row, ...]
    imaml: tuple[GradientError, ...]
    environment: dict[str, Any]

    def row(self, size: str, method: str) -> Row:
        """Return the row of a method at a size."""
        return next(row for row in self.rows if (row.size, row.method) == (size, method))

    def growth(self, row: Row) -> float:
        r"""Return the power of the number of steps with which the measured memory of a row grows, $0$ where flat."""
        few, many = self.spending.steps
        return math.log(row.measured_bytes[1] / row.measured_bytes[0]) / math.log(many / few)

    def theoretical_growth(self, row: Row) -> float:
        """Return the same of the theory."""
        few, many = self.spending.steps
        return math.log(row.theory_bytes[1] / row.theory_bytes[0]) / math.log(many / few)


def compute(work: Workspace, spending: Spending) -> Orders:
    """Compile what was not compiled yet, in single precision. Nothing is run but iMAML of a small network."""
    forget_programs()  # of what was reproduced before: these programs need the memory
    with jax.enable_x64(False):
        return _compute(work, spending)


def _compute(work: Workspace, spending: Spending) -> Orders:
    cells = [(size, line, steps) for size in spending.sizes for line in LINES for steps in spending.steps]
    total = len(cells) + len(spending.imaml_steps)
    measured: dict[tuple[str, str], list[int]] = {}
    for number, (size, line, steps) in enumerate(cells):
        method = METHODS[line.method]
        work.on_progress(f"{line.title}, {size.name}, n = {steps:,}", number / total)
        steps = spending.steps[0] if method.fixed_program else steps
        configuration = _configuration(size, method, steps)
        name = f"{spending.sizes.index(size)}-{line.method}" + ("" if method.fixed_program else f"-{steps}")
        compile_one = functools.partial(_compile, method, size, steps)
        measured.setdefault((size.name, line.method), []).append(work.kept(name, configuration, compile_one))
    errors = []
    for number, steps in enumerate(spending.imaml_steps, start=len(cells)):
        work.on_progress(f"iMAML's gradient, n = {steps:,}", number / total)
        configuration = _configuration(SMALL, METHODS["imaml"], steps)
        errors.append(work.kept(f"imaml-error-{steps}", configuration, functools.partial(_imaml_error, steps)))
    counts = {size.name: _counts(size) for size in spending.sizes}
    rows = [_row(counts[name], spending.steps, name, method, values) for (name, method), values in measured.items()]
    imaml = tuple(GradientError(**error) for error in errors)
    return Orders(work.budget, spending, counts, tuple(rows), imaml, work.environment())


def _configuration(size: Size, method: Method, steps: int) -> dict[str, Any]:
    return {
        "size": converter.unstructure(size),
        "method": method.name,
        "steps": None if method.fixed_program else steps,
    }


def _row(counts: Counts, steps: tuple[int, int], size: str, method: str, measured: list[int]) -> Row:
    line = next(line for line in LINES if line.method == method)
    few, many = (round(BYTES * line.theory(dataclasses.replace(counts, steps=n))) for n in steps)
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


def _imaml_error(steps: int) -> dict[str, Any]:
    learner = METHODS["imaml"].build(SMALL.network, SMALL.image_size, SMALL.ways, steps)
    assert isinstance(learner, IMAML)
    return asdict(gradient_error(learner, images_of_task(SMALL.image_size, SMALL.ways, SMALL.shots, QUERIES)))


def _task(size: Size, example: tuple[int, ...]) -> Episode:
    """Return the shapes of a task."""

    def task() -> Episode:
        def examples(count: int) -> Examples:
            shapes = (count, *example), (count, size.ways), (count,)
            return Examples(*(jnp.zeros(shape, jnp.float32) for shape in shapes))

        return Episode(examples(size.support), examples(size.ways * QUERIES))

    return eqx.filter_eval_shape(task)
