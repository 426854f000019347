"""Figure 1: adaptation by steps of gradient descent, and along a gradient flow, in a plane of weights."""

__all__ = ["FILES", "Figure1", "Steps", "compute", "describe", "draw", "facts", "numbers", "restore", "tables", "write"]

import dataclasses
import html
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.backbones import Identity
from comln.data.batches import gather
from comln.data.glyphs import load_glyphs
from comln.data.sampling import EpisodeShape, Sampler
from comln.episode import Examples
from comln.flow.gradient_flow_path import gradient_flow_path
from comln.flow.integrator import Integrator
from comln.learners import ANIL, COMLN
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.measure import environment
from comln.reproduce.numbers import as_numbers, from_numbers
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.workspace import Workspace

FILES = ("figure1.json", "figure1.svg", "figure1.png", "index.html")
"""What `write` writes."""

TASK, SHOTS = 0, 5
HORIZON = 30.0
STEPS = (4, 8, 16, 32, 64, 128, 256)
SHOWN = 8
"""Of the numbers of steps, the one that is drawn."""

START = (-1.0, 1.5)
"""Where both begin: the weights of the first class; those of the second are the negative of them."""

POINTS = 400
SAME = 1e-4
"""Weights that differ by less, relative to their norm, are the same in single precision."""

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8a8f96"


@dataclass(frozen=True)
class Steps:
    """Gradient descent by so many steps, to the horizon.

    - `count`, `size`: how many, and of what length.
    - `distance`: of its last weights from those of the flow at the horizon.
    - `from_euler`: of its last weights from those of COMLN with Euler steps of that length.
    """

    count: int
    size: float
    distance: float
    from_euler: float


@dataclass(frozen=True)
class Figure1:
    """One task of two classes in the plane, adapted to in both ways.

    - `classes`: their names.
    - `embeddings`: of the support, shape `(support, 2)`; the first half is of the first class.
    - `path`: weights of the first class along the flow, shape `(time, 2)`, at equal distances in time.
    - `descent`: the same at each step of gradient descent, `SHOWN` of them.
    - `steps`: for each number of steps.
    - `solver_steps`: that the flow took.
    - `environment`: where it was computed.
    """

    classes: tuple[str, ...]
    embeddings: tuple[tuple[float, float], ...]
    path: tuple[tuple[float, float], ...]
    descent: tuple[tuple[float, float], ...]
    steps: tuple[Steps, ...]
    solver_steps: int
    environment: dict[str, Any]


def compute(work: Workspace) -> Figure1:
    """Return the numbers. They take seconds, whatever the budget."""
    work.on_progress("adapting in two ways", 0.0)
    classes, embeddings = plane_task()
    labels = jnp.repeat(jnp.eye(2), SHOTS, axis=0)
    # With two classes, opposite rows stay opposite: the flow of the four weights is one of two.
    start = jnp.array([START, [-x for x in START]])
    support = Examples(embeddings, labels, jnp.ones(len(labels)))
    path = gradient_flow_path(start, embeddings, labels, HORIZON)
    times = jnp.linspace(0.0, HORIZON, POINTS)
    weights = np.asarray(path.weights_at(times))
    rows = []
    for count in STEPS:
        size = HORIZON / count
        ends = [np.asarray(by(start, size, count, support)) for by in (_descend, _by_euler)]
        distance, from_euler = (float(np.linalg.norm(ends[0] - other)) for other in (weights[-1], ends[1]))
        rows.append(Steps(count, size, distance, from_euler))
    descent = [start]
    for _ in range(SHOWN):
        descent.append(_descend(descent[-1], HORIZON / SHOWN, 1, support))
    return Figure1(
        classes=classes,
        embeddings=_pairs(embeddings),
        path=_pairs(weights[:, 0]),
        descent=_pairs(np.stack(descent)[:, 0]),
        steps=tuple(rows),
        solver_steps=int(path.info.steps),
        environment=environment(),
    )


def _pairs(rows: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in np.asarray(rows))


def plane_task() -> tuple[tuple[str, ...], jax.Array]:
    """Return the class names of a task of glyphs, and its images in the plane of their main directions.

    They are centred, and as long as the root of two in the mean square.
    """
    split = load_glyphs()["test"]
    drawn = Sampler(split, EpisodeShape(2, SHOTS, 1)).draw(0, TASK)
    images = gather([drawn], [TASK], lambda positions: split.examples[positions]).support
    flat = np.asarray(images, float).reshape(2 * SHOTS, -1)
    centred = flat - flat.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    plane = left[:, :2] * sizes[:2]
    plane = plane / np.sqrt(np.mean(np.sum(np.square(plane), axis=1)) / 2)
    names = tuple(split.class_names[index] for index in drawn.classes)
    return names, jnp.asarray(plane, jnp.result_type(float))


def _descend(start: jax.Array, size: float, count: int, support: Examples) -> Any:
    """Return the weights after steps of gradient descent, as ANIL takes them."""
    learner = ANIL.init(Identity(2), 2, jax.random.key(0), size, count)
    head, _ = dataclasses.replace(learner, initial_weights=start).adapt(support)
    return head.weights


def _by_euler(start: jax.Array, size: float, count: int, support: Examples) -> Any:
    """Return the weights that COMLN comes to with Euler steps."""
    learner = COMLN.init(Identity(2), 2, jax.random.key(0), size * count, integrator=Integrator.euler(size))
    head, _ = dataclasses.replace(learner, initial_weights=start).adapt(support)
    return head.weights


def facts(result: Figure1) -> tuple[Fact, ...]:
    """Return what the paper says of the two ways, judged."""
    largest = max(row.from_euler for row in result.steps)
    norm = float(np.linalg.norm(result.path[-1]))
    # The last four numbers of steps, each twice the one before.
    last = result.steps[-4:]
    orders = [np.log2(a.distance / b.distance) for a, b in itertools.pairwise(last)]
    return (
        judged(
            "With Euler steps the adaptation of COMLN is that of ANIL (Section 3.3).",
            largest <= SAME * norm,
            f"their weights differ by {largest:.1e} at most, of {norm:.2f}.",
        ),
        judged(
            "The flow is the limit of gradient descent with small steps (equation 6).",
            all(0.8 <= order <= 1.2 for order in orders),
            f"from {last[0].count} to {last[-1].count} steps the distance falls from {last[0].distance:.1e} to "
            f"{last[-1].distance:.1e}: as the step to the power of {min(orders):.2f} to {max(orders):.2f}.",
        ),
    )


def draw(result: Figure1) -> Figure:
    """Return the picture: steps, the flow, and how far they are apart."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 3.9), layout="constrained")
        discrete, continuous, distance = figure.subplots(1, 3)
        points, path = np.array(result.descent), np.array(result.path)
        for axes in (discrete, continuous):
            _draw_loss(axes, result, np.concatenate([points, path]))
        discrete.plot(*points.T, color=BLUE, marker="o", markersize=4, linewidth=1.2)
        discrete.plot(*path.T, color=ORANGE, linewidth=1.0, linestyle=":")
        discrete.set_title(f"(a) Gradient descent, {SHOWN} steps (dotted: the flow)")
        continuous.plot(*path.T, color=ORANGE, linewidth=2.0)
        continuous.set_title("(b) Gradient flow")
        for axes, line, end in ((discrete, points, f"$W_{SHOWN}$"), (continuous, path, "$W(T)$")):
            axes.plot(*line[-1], "o", color="black", markersize=5, zorder=4)
            axes.annotate("$W_0$" if end != "$W(T)$" else "$W(0)$", line[0], textcoords="offset points", xytext=(6, 4))
            axes.annotate(end, line[-1], textcoords="offset points", xytext=(6, 4))
        counts = [row.count for row in result.steps]
        distance.loglog(counts, [row.distance for row in result.steps], color=BLUE, marker="o", markersize=4)
        last = result.steps[-1]
        guide = [2 * last.distance * last.count / count for count in counts]
        distance.loglog(counts, guide, color=GREY, linestyle=":", label="first order")
        distance.set(
            xlabel="steps to the same horizon", ylabel="distance at the end", title="(c) The limit is the flow"
        )
        distance.set_xticks(counts, [str(count) for count in counts])
        distance.minorticks_off()
        distance.legend()
    return figure


def _draw_loss(axes: Axes, result: Figure1, shown: np.ndarray) -> None:
    """Draw lines of equal support loss behind the weights that are shown."""
    low, high = shown.min(axis=0), shown.max(axis=0)
    middle, half = (low + high) / 2, 0.62 * float(np.max(high - low))
    grid = np.stack(np.meshgrid(*(np.linspace(m - half, m + half, 121) for m in middle)), axis=-1)
    embeddings = np.array(result.embeddings)
    signs = np.repeat([1.0, -1.0], len(embeddings) // 2)
    # The logits of the two classes are opposite, so a softmax of both is a logistic function of twice the first.
    margins = 2 * signs * np.einsum("...f,mf->...m", grid, embeddings)
    loss = np.mean(np.logaddexp(0.0, -margins), axis=-1)
    levels = np.geomspace(max(float(loss.min()), 1e-3) * 1.2, float(loss.max()), 12)
    axes.contour(grid[..., 0], grid[..., 1], loss, levels, colors=GREY, linewidths=0.5, alpha=0.7)
    axes.set(xlabel="weight 1 of the first class", ylabel="weight 2", aspect="equal")


def numbers(result: Figure1) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return as_numbers("figure1", result, facts(result))


def restore(content: Mapping[str, Any]) -> Figure1:
    """Return a result from its `numbers`."""
    return from_numbers(content, Figure1)


def describe(result: Figure1) -> str:
    """Return the table and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Figure1) -> Iterator[Table]:
    """Yield the table."""
    header = ["steps", "step size", "distance from the flow", "distance from COMLN with Euler"]
    body = [[str(row.count), f"{row.size:.3g}", f"{row.distance:.2e}", f"{row.from_euler:.1e}"] for row in result.steps]
    yield f"Gradient descent to T = {HORIZON:g}; the flow took {result.solver_steps} adaptive steps", [header, *body]


def write(result: Figure1, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "figure1")
    explanation = (
        f"<p>A task of two classes, {html.escape(' and '.join(result.classes))}, with {SHOTS} images of each in the "
        "plane of their main directions. The weights of the two classes stay opposite, so those of the first are all "
        "there is to draw; grey lines have equal support loss. ANIL takes discrete steps down the loss (a); COMLN "
        f"follows the flow for a time T (b). With ever more steps to the same time, (a) becomes (b) (c).</p>"
        f"{as_html(facts(result))}"
    )
    title = "Figure 1: adaptation by steps, and along a flow"
    page = Page(title, svg, explanation, tables(result), "figure1")
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
