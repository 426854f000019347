"""Figure 2: the adjoint method loses the trajectory of a gradient flow on its way back. The picture and its page."""

__all__ = ["FILES", "compute", "describe", "draw", "facts", "numbers", "tables", "write"]

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from comln.reproduce import reintegration
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.reintegration import (
    CURVATURES,
    HORIZON,
    HORIZONS,
    LABELS,
    SHOTS,
    WAYS,
    Figure2,
    GradientErrors,
    QuadraticRun,
    SupportRun,
    quadratic,
)
from comln.reproduce.workspace import Workspace

FILES = ("figure2.json", "figure2.svg", "figure2.png", "index.html")
"""What `write` writes."""

LOST = 100.0
"""What grows by this factor is lost: the error of a trajectory, or of a gradient."""

BLUE, VERMILLION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#8a8f96"
HOLLOW: dict[str, Any] = {
    "marker": "o",
    "linestyle": "none",
    "color": GREEN,
    "markersize": 4.5,
    "markerfacecolor": "white",
}
BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "handlelength": 2.8}


def compute(work: Workspace) -> Figure2:
    """Return the numbers. They take seconds, whatever the budget."""
    work.on_progress("integrating forward and back", 0.0)
    return reintegration.compute()


def draw(result: Figure2) -> Figure:
    """Return the picture: trajectories in the plane, their distance from the truth, and the support loss."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 4.3), layout=ConstrainedLayoutEngine(wspace=0.06))
        plane, distance, support = figure.subplots(1, 3)
        _draw_plane(plane, result.quadratic[0])
        _draw_distance(distance, result.quadratic)
        _draw_support(support, result.support)
    return figure


def _draw_plane(axes: Axes, run: QuadraticRun) -> None:
    curvature, minimum, start, _ = quadratic()
    shown = np.concatenate([run.forward, minimum[None]])
    reach = 1.5 * np.max(np.abs(shown - minimum))
    # A divergence that is far larger than the path itself leaves the picture.
    shown = np.concatenate([shown, run.backward[np.max(np.abs(run.backward - minimum), axis=1) < reach]])
    middle, half = (shown.min(axis=0) + shown.max(axis=0)) / 2, 0.6 * np.max(np.ptp(shown, axis=0))
    low, high = middle - half, middle + half
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 121) for a, b in zip(low, high, strict=True))), axis=-1) - minimum
    loss = np.einsum("...i,ij,...j->...", grid, curvature, grid) / 2
    levels = np.geomspace(0.01, 1.0, 9) * loss.max()
    axes.contour(
        grid[..., 0] + minimum[0], grid[..., 1] + minimum[1], loss, levels, colors=GREY, linewidths=0.5, alpha=0.6
    )
    axes.plot(*run.forward.T, color=BLUE, linewidth=2.2, label="forward, from $W(0)$")
    axes.plot(*run.backward.T, color=VERMILLION, linewidth=1.6, linestyle="--", label="backward, from $W(T)$")
    axes.plot(*run.kept.T, **HOLLOW, label="states kept for reverse mode (ours)", zorder=3)
    axes.plot(*run.forward[-1], "o", color=BLUE, markersize=5, zorder=4)
    axes.plot(*minimum, marker="*", color="black", markersize=8)
    for point, text, offset in (
        (start, "$W(0)$", (8, -4)),
        (run.forward[-1], "$W(T)$", (-12, -16)),
        (minimum, "$W^*$", (-5, 8)),
    ):
        axes.annotate(text, tuple(point), textcoords="offset points", xytext=offset)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$W_1$", ylabel="$W_2$", aspect="equal")
    axes.set_title(f"(a) Quadratic loss, {run.dtype}")
    axes.legend(**BELOW)


def _draw_distance(axes: Axes, runs: Sequence[QuadraticRun]) -> None:
    for run, style in zip(runs, ("-", (0, (4, 1.5))), strict=True):
        name = f"{run.dtype}, tol. {_power(run.tolerance)}"
        axes.semilogy(run.times, run.backward_distance, color=VERMILLION, linestyle=style, label=f"backward, {name}")
        axes.semilogy(run.times[1:], run.forward_distance[1:], color=BLUE, linestyle=style, label=f"forward, {name}")
    run = runs[0]
    later = run.kept_times > 0
    axes.semilogy(run.kept_times[later], run.kept_distance[later], **HOLLOW, label=f"kept states, {run.dtype}")
    fastest, horizon = max(CURVATURES), run.times[-1]
    guide = 5 * run.backward_distance[-1] * np.exp(fastest * (horizon - run.times))
    axes.semilogy(run.times, guide, color=GREY, linestyle=":", label=r"$\propto e^{\mu_{\max}(T - t)}$")
    axes.set(
        xlabel="time $t$",
        ylabel="distance to the exact solution",
        xlim=(0, horizon),
        xticks=np.arange(0, horizon + 1, 4),
    )
    axes.set_title("(b) The error grows on the way back")
    axes.legend(**BELOW, ncols=2, columnspacing=1.0)


def _draw_support(axes: Axes, runs: Sequence[SupportRun]) -> None:
    for (labels, _), style, marker in zip(LABELS, ("-", (0, (4, 1.5))), ("o", "s"), strict=True):
        chosen = [run for run in runs if run.labels == labels]
        horizons = [run.horizon for run in chosen]
        for errors, colour, what in (
            ([run.backward_error for run in chosen], VERMILLION, "backward, of $W(0)$"),
            ([run.forward_error for run in chosen], BLUE, "forward, of $W(T)$"),
        ):
            axes.loglog(horizons, errors, color=colour, linestyle=style, marker=marker, markersize=4,
                        label=f"{what}, {labels} labels")  # fmt: skip
    axes.set_xticks(HORIZONS, [f"{horizon:g}" for horizon in HORIZONS])
    axes.minorticks_off()
    axes.set(xlabel="horizon $T$", ylabel="error of the weights")
    axes.set_title("(c) Support loss of a task, float32")
    axes.legend(**BELOW)


def _power(tolerance: float) -> str:
    return f"$10^{{{round(math.log10(tolerance))}}}$"


# What is written and printed


def numbers(result: Figure2) -> dict[str, Any]:
    """Return the numbers as JSON can hold them; one that is not finite is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(member) for name, member in value.items()}
        if isinstance(value, list | tuple | np.ndarray):
            return [plain(member) for member in value]
        if isinstance(value, float | np.floating):
            return float(value) if math.isfinite(value) else None
        return value

    content = plain(asdict(result))
    for run, row in zip(result.quadratic, content["quadratic"], strict=True):
        row["growth_rate"] = plain(run.growth_rate)
    setting = {"curvatures": CURVATURES, "horizon": HORIZON, "ways": WAYS, "shots": SHOTS}
    found = [asdict(fact) for fact in facts(result)]
    return {"target": "figure2", "setting": plain(setting), **content, "facts": found}


def facts(result: Figure2) -> tuple[Fact, ...]:
    """Return what the paper says of the adjoint method, judged by the quadratic loss and by a task with a minimum."""
    longest = [run for run in result.support if run.horizon == max(HORIZONS) and run.labels == "smoothed"]
    lost = [run.backward_distance[0] / run.forward_distance[-1] for run in result.quadratic]
    lost += [run.backward_error / run.forward_error for run in longest]
    kept = [run.forward_distance[-1] / run.tolerance for run in result.quadratic]
    gradients = [run.embeddings for run in longest] + [run.curvature for run in result.quadratic]
    return (
        judged(
            "Going back in time, the adjoint method leaves the trajectory; going forward is stable.",
            bool(min(lost) > LOST and max(kept) < LOST),
            f"back at W(0) the error is at least {min(lost):.1e} times that at W(T), which is at most "
            f"{max(kept):.1g} times the tolerance.",
        ),
        judged(
            "Meta-gradients by the adjoint method are wrong for it; with the states of the way forward they are not.",
            bool(min(pair.reintegrated / pair.kept for pair in gradients) > LOST),
            "the error of those that need the trajectory is, back in time, at least "
            f"{min(pair.reintegrated / pair.kept for pair in gradients):.1e} times that with states kept, and up to "
            f"{max(pair.reintegrated for pair in gradients):.1e} times as large as the gradient; with states kept "
            f"at most {max(pair.kept for pair in gradients):.1e}. With one-hot labels of separable classes, whose "
            "curvature fades, the adjoint method stays usable at these horizons.",
        ),
    )


def describe(result: Figure2) -> str:
    """Return the main numbers and what is concluded as text."""
    return "\n\n".join([as_text(tables(result)), *as_lines(facts(result))])


def tables(result: Figure2) -> Iterator[Table]:
    """Yield the title and the rows of each table, its header first."""
    curvatures = " and ".join(f"{curvature:g}" for curvature in CURVATURES)
    header = ["precision", "tolerance", "forward, W(T)", "backward, W(0)", "kept states", "growth rate"]
    rows = [
        [
            run.dtype,
            f"{run.tolerance:.0e}",
            f"{run.forward_distance[-1]:.1e}",
            f"{run.backward_distance[0]:.1e}",
            f"{np.max(run.kept_distance):.1e}",
            f"{run.growth_rate:.3f}",
        ]
        for run in result.quadratic
    ]
    yield f"Quadratic loss, curvatures {curvatures}, T = {HORIZON:g}: distance to the exact solution", [header, *rows]
    header = ["precision", "W(0), backward", "W(0), ours", "A, backward", "A, ours"]
    rows = [[run.dtype, *_gradient_errors(run.initial_weights, run.curvature)] for run in result.quadratic]
    yield "Quadratic loss: relative error of the gradients in W(0) and A", [header, *rows]
    header = ["labels", "T", "forward, W(T)", "backward, W(0)"]
    rows = [
        [run.labels, f"{run.horizon:g}", f"{run.forward_error:.1e}", f"{run.backward_error:.1e}"]
        for run in result.support
    ]
    yield f"Support loss, {WAYS} ways, {SHOTS} shots, float32: error of the weights", [header, *rows]
    header = ["labels", "T", "W(0), backward", "W(0), ours", "embeddings, backward", "embeddings, ours"]
    rows = [
        [run.labels, f"{run.horizon:g}", *_gradient_errors(run.initial_weights, run.embeddings)]
        for run in result.support
    ]
    yield "Support loss: relative error of the meta-gradients", [header, *rows]


def _gradient_errors(*errors: GradientErrors) -> list[str]:
    return [f"{error:.1e}" for pair in errors for error in (pair.reintegrated, pair.kept)]


def write(result: Figure2, folder: Path) -> list[Path]:
    """Write the files into an existing folder, each whole or not at all, and return their paths."""
    svg, png = render(draw(result), "figure2")
    explanation = f"{as_html(facts(result))}{WHAT_TO_LOOK_AT}"
    page = Page("Figure 2: the adjoint method on a gradient flow", svg, explanation, tables(result), "figure2")
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))


WHAT_TO_LOOK_AT = """
<ul>
<li><b>(a)</b> The forward solve (blue) goes from W(0) down the loss to W(T), short of the minimum W*. The adjoint
method of Neural ODEs keeps W(T) alone and integrates the flow backward to have W(t) again (orange, dashed): it climbs,
and leaves the path. The states that our reverse mode keeps on the way forward (green) lie on the path; the steps
between them are taken again, forward.</li>
<li><b>(b)</b> Backward the error grows like exp(μ(T − t)), with μ the largest curvature. A tighter tolerance in a
higher precision moves the line down; its slope stays, so that a longer T undoes any gain.</li>
<li><b>(c)</b> On a support loss with smoothed labels, which has a minimum, the same happens. With one-hot labels of
separable classes there is none: the curvature fades as the loss falls, and the error grows slowly.</li>
<li><b>Gradients.</b> On the quadratic the curvature does not depend on W(t), and the gradient in W(0) survives; the
gradient in the curvature A needs W(t), and does not. On the smoothed support loss both go wrong; on the one-hot one
they are less accurate than ours, but still usable at T = 50.</li>
</ul>
"""
