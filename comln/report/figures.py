"""Figures of a run, each as an SVG string that takes its text colour from the page around it."""

__all__ = ["accuracy_along_path", "confusion_matrix", "horizon_over_training", "learning_curves", "reliability"]

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from comln.report.axis_names import axis_names, without_font_remarks
from comln.report.calibration import Calibration
from comln.report.confusion import Confusion

BLUE, ORANGE, GREEN = "#3b7dd8", "#d9822b", "#2c9c69"
NEUTRAL = "#7f8790"
"""Readable on white and on black; in the SVG it becomes the colour of the page's text."""


def learning_curves(steps: Sequence[float | int], losses: Sequence[float], accuracies: Sequence[float]) -> str:
    """Return loss and training accuracy against the step, faint as measured and bold as smoothed."""
    figure, (left, right) = _figure(2)
    for axes, values, colour, label in (
        (left, np.asarray(losses), BLUE, "query loss (nats)"),
        (right, 100 * np.asarray(accuracies), GREEN, "query accuracy (%)"),
    ):
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.7)
        axes.plot(steps, _smooth(values), color=colour, linewidth=1.8)
        _label(axes, "step", label)
    return _svg(figure, "Loss and accuracy over training")


def horizon_over_training(steps: Sequence[float | int], horizons: Sequence[float]) -> str:
    """Return the horizon against the step, on a logarithmic axis."""
    figure, (axes,) = _figure(1)
    # Limits first: matplotlib warns where it has to choose them for a horizon that never moves.
    axes.set_yscale("log")
    axes.set_ylim(0.7 * min(horizons), 1.4 * max(horizons))
    axes.plot(steps, horizons, color=ORANGE, linewidth=1.8)
    _label(axes, "step", "horizon T")
    return _svg(figure, "The horizon over training")


def accuracy_along_path(
    horizons: np.ndarray, accuracies: np.ndarray, intervals: np.ndarray, learned: float, chance: float
) -> str:
    """Return test accuracy, with its 95 % interval, against the time at which the flow is stopped."""
    figure, (axes,) = _figure(1)
    axes.set_xscale("symlog", linthresh=float(horizons[1]) if len(horizons) > 1 else 1.0)
    axes.fill_between(horizons, 100 * (accuracies - intervals), 100 * (accuracies + intervals), color=BLUE, alpha=0.2)
    axes.plot(horizons, 100 * accuracies, color=BLUE, linewidth=1.8, marker="o", markersize=3)
    axes.axvline(learned, color=ORANGE, linestyle="--", linewidth=1.4)
    axes.axhline(100 * chance, color=NEUTRAL, linestyle=":", linewidth=1.2)
    axes.annotate(f"learned T = {learned:.3g}", (learned, 0.08), xycoords=("data", "axes fraction"), color=ORANGE,
                  textcoords="offset points", xytext=(-6, 0), ha="right")  # fmt: skip
    axes.annotate("chance", (0.01, 100 * chance), xycoords=("axes fraction", "data"), color=NEUTRAL,
                  textcoords="offset points", xytext=(0, 3))  # fmt: skip
    axes.set_ylim(0, 103)
    _label(axes, "time t at which the flow is stopped", "test accuracy (%)")
    return _svg(figure, "Test accuracy along the flow")


def reliability(found: Calibration) -> str:
    """Return how often predictions are right against their probability, and how many there are of each."""
    figure, (axes, numbers) = _figure(2)
    axes.plot([0, 100], [0, 100], color=NEUTRAL, linestyle=":", linewidth=1.2)
    axes.plot(100 * found.confidence, 100 * found.accuracy, color=BLUE, linewidth=1.8, marker="o", markersize=4)
    axes.set(xlim=(0, 103), ylim=(0, 103))
    _label(axes, "probability of the predicted class (%)", "predictions that are right (%)")
    numbers.bar(100 * found.confidence, found.count / np.sum(found.count) * 100, width=4.0, color=BLUE, alpha=0.6)
    numbers.set_xlim(0, 103)
    _label(numbers, "probability of the predicted class (%)", "share of the predictions (%)")
    return _svg(figure, "Reliability of the probabilities")


def confusion_matrix(found: Confusion) -> str:
    """Return the share of each class's queries that was taken for each class, where both were in the task."""
    count = len(found.class_names)
    figure, (axes,) = _figure(1)
    side = 2.2 + 0.16 * count
    figure.set_size_inches(side + 0.8, side)
    shares = 100 * found.shares
    mesh = axes.pcolormesh(np.ma.masked_invalid(shares), cmap="cividis", vmin=0, vmax=100, edgecolors="face")
    axes.invert_yaxis()
    places = np.arange(count) + 0.5
    names = axis_names(found.class_names)
    axes.set_xticks(places, names, rotation=90, fontsize=6)
    axes.set_yticks(places, names, fontsize=6)
    bar = figure.colorbar(mesh, ax=axes, label="share (%)")
    bar.ax.tick_params(colors=NEUTRAL)
    bar.ax.yaxis.label.set_color(NEUTRAL)
    _label(axes, "taken for", "class")
    axes.grid(visible=False)
    axes.set_aspect("equal")
    return _svg(figure, "Confusion of the test classes")


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.2 * count, 2.9), layout="constrained")
    figure.patch.set_alpha(0.0)
    return figure, [figure.add_subplot(1, count, index + 1) for index in range(count)]


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=NEUTRAL)
    axes.set_ylabel(y, color=NEUTRAL)
    axes.patch.set_alpha(0.0)
    axes.tick_params(which="both", colors=NEUTRAL, labelcolor=NEUTRAL)
    axes.grid(alpha=0.2, color=NEUTRAL)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(NEUTRAL)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return a running mean over about a fortieth of the values."""
    width = max(1, len(values) // 40)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _svg(figure: Figure, title: str) -> str:
    """Return the figure as an SVG element: text as text in the page's font, nothing that asks for another file."""
    buffer = io.StringIO()
    with (
        without_font_remarks(),
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}),
    ):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    element = re.sub(r"^.*?(?=<svg )", "", buffer.getvalue(), flags=re.DOTALL)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL).replace(NEUTRAL, "currentColor")
    # Ids are unique to a figure, not to a page that holds several.
    prefix = re.sub(r"\W+", "-", title.lower())
    element = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
