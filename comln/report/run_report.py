"""The report of a run: one HTML file that asks for no other, light and dark, without scripts."""

__all__ = ["Predictions", "RunReport", "write_report"]

import html
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comln.report.calibration import calibration
from comln.report.confusion import Confusion, confusion
from comln.report.episode_page import EpisodePicture, episode_html

CLASSES_DRAWN = 40
"""A confusion matrix of more classes than this could not be read."""
PAIRS_SHOWN = 10


@dataclass(frozen=True)
class Predictions:
    """What the learner made of the queries of some test tasks whose adaptation worked.

    - `class_names`: of the split.
    - `classes_of`: the class of each way, shape `(task, way)`.
    - `ways`: the right way of each query, shape `(task, query)`.
    - `probabilities`: shape `(task, query, way)`.
    """

    class_names: tuple[str, ...]
    classes_of: np.ndarray
    ways: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The way that each query is taken for, shape `(task, query)`."""
        return np.argmax(self.probabilities, axis=-1)


@dataclass(frozen=True)
class RunReport:
    """What a report shows.

    - `title`, `command`: the run, and how to repeat it.
    - `configuration`: resolved, nested.
    - `metrics`: one dictionary an update: step, loss, accuracy, and horizon where the learner has one.
    - `accuracy`, `ci95` (in [0, 1]), `tasks`, `failed`, `ways`, `shots`, `normalisation`: the final evaluation.
    - `learned_horizon`, `horizons`, `accuracy_at`, `ci95_at`: test accuracy along the flow, where there is one.
    - `own_horizons`: whether each task has a horizon of its own, of which `learned_horizon` is the median.
    - `predictions`: of test tasks; `None` where no adaptation worked.
    - `episodes`: some of them, each with a heading.
    """

    title: str
    command: str
    configuration: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float | int]]
    accuracy: float
    ci95: float
    tasks: int
    failed: int
    ways: int
    shots: int
    normalisation: str
    learned_horizon: float | None
    own_horizons: bool
    horizons: np.ndarray | None
    accuracy_at: np.ndarray | None
    ci95_at: np.ndarray | None
    predictions: Predictions | None
    episodes: Sequence[tuple[str, EpisodePicture]]


def write_report(report: RunReport, folder: Path) -> Path:
    """Write `index.html` into `folder`, whole or not at all, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    page, temporary = folder / "index.html", folder / ".index.html.part"
    temporary.write_text(render(report), encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, page)
    return page


def render(report: RunReport) -> str:
    """Return the page."""
    title = html.escape(report.title)
    failed = f" The adaptation failed on {report.failed} of them, which count as wrong." if report.failed else ""
    body = "".join(
        f"<section><h2>{heading}</h2>{content}</section>" for heading, content in _sections(report) if content
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{STYLE}</style></head><body><main>
<h1>{title}</h1>
<p class="headline"><strong>{100 * report.accuracy:.1f} %</strong> ± {100 * report.ci95:.1f}</p>
<p>Accuracy on {report.tasks} {report.ways}-way {report.shots}-shot tasks of unseen classes, with the 95 % confidence
interval of the mean; chance is {100 / report.ways:.0f} %.
Batch statistics: {html.escape(report.normalisation)}.{failed}</p>
{body}
</main></body></html>
"""


def _sections(report: RunReport) -> Iterator[tuple[str, str]]:
    yield "Training", _training(report)
    yield "Accuracy along the flow", _path(report)
    if report.predictions is not None:
        yield "Calibration", _calibration(report.predictions)
        yield "Confusion", _confusion(report.predictions)
    pictures = (
        f"<h3>{html.escape(heading)}</h3><div class='scroll'>{episode_html(picture)}</div>"
        for heading, picture in report.episodes
    )
    yield "The best and the worst tasks", "".join(pictures)
    yield "Configuration", _table(report.configuration)
    yield "Repeat this run", f"<pre>{html.escape(report.command)}</pre>"


def _training(report: RunReport) -> str:
    from comln.report.figures import horizon_over_training, learning_curves

    usable = [line for line in report.metrics if all(math.isfinite(line[name]) for name in ("loss", "accuracy"))]
    if not usable:
        return "<p>No step was recorded.</p>"
    left_out = len(report.metrics) - len(usable)
    note = f"<p>{left_out} steps without finite numbers are left out.</p>" if left_out else ""
    steps = [line["step"] for line in usable]
    curves = learning_curves(steps, [line["loss"] for line in usable], [line["accuracy"] for line in usable])
    timed = [line for line in usable if line.get("horizon", 0.0) > 0 and math.isfinite(line["horizon"])]
    if timed:
        curves += horizon_over_training([line["step"] for line in timed], [line["horizon"] for line in timed])
    return f"<div class='figures'>{curves}</div>{note}"


def _path(report: RunReport) -> str:
    from comln.report.figures import accuracy_along_path

    if (
        report.horizons is None
        or report.accuracy_at is None
        or report.ci95_at is None
        or report.learned_horizon is None
    ):
        return ""
    figure = accuracy_along_path(
        report.horizons, report.accuracy_at, report.ci95_at, report.learned_horizon, 1 / report.ways
    )
    where = (
        "each task has a T of its own, learned from its support, and the mark is their median"
        if report.own_horizons
        else "T is where training learned to stop it"
    )
    note = f"<p>The adapted classifier exists at every time; {where}.</p>"
    return f"<div class='figures'>{figure}</div>{note}"


def _calibration(predictions: Predictions) -> str:
    from comln.report.figures import reliability

    ways = predictions.probabilities.shape[-1]
    found = calibration(predictions.probabilities.reshape(-1, ways), predictions.ways.ravel())
    note = (
        f"<p>Expected calibration error: <strong>{100 * found.expected_error:.1f} %</strong>, over "
        f"{int(np.sum(found.count)):,} predictions of {len(predictions.ways)} test tasks. Points below the dotted line "
        "are more confident than right.</p>"
    )
    return f"<div class='figures'>{reliability(found)}</div>{note}"


def _confusion(predictions: Predictions) -> str:
    from comln.report.figures import confusion_matrix

    found = confusion(predictions.class_names, predictions.classes_of, predictions.ways, predictions.predicted)
    drawn = found.hardest(CLASSES_DRAWN)
    note = (
        f"<p>Of {len(found.class_names)} classes, the {len(drawn.class_names)} with most mistakes. "
        if len(drawn.class_names) < len(found.class_names)
        else "<p>"
    )
    return (
        f"<div class='figures scroll'>{confusion_matrix(drawn)}</div>"
        f"{note}Blank where two classes never met in a task.</p>{_pairs(found)}"
    )


def _pairs(found: Confusion) -> str:
    pairs = list(found.worst(PAIRS_SHOWN))
    if not pairs:
        return "<p>No query was taken for another class.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(other)}</td>"
        f"<td>{times} of {possible} ({100 * times / possible:.0f} %)</td></tr>"
        for name, other, times, possible in pairs
    )
    header = "<tr><th>class</th><th>taken for</th><th>queries, where both were in the task</th></tr>"
    return f"<table><caption>Most often confused</caption>{header}{rows}</table>"


def _table(configuration: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in _flatten(configuration)
    )
    return f"<div class='scroll'><table>{rows}</table></div>"


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, member in value.items():
            yield from _flatten(member, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, default=str)


STYLE = """
:root { color-scheme: light dark; --line: #8885;
  --good: light-dark(#1b7f4d, #5fd39a); --bad: light-dark(#c0392b, #ff8a7a); }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: Canvas; color: CanvasText; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; }
.headline { font-size: 2rem; margin: 0.5rem 0; }
.figures svg { max-width: 100%; height: auto; font-family: system-ui, sans-serif; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin-bottom: 1rem; }
caption { text-align: left; font-weight: 600; padding: 0.3rem 0; }
th, td { border: 1px solid var(--line); padding: 0.25rem 0.5rem; text-align: left; vertical-align: middle; }
.episode th[scope=row] { font-weight: 400; min-width: 8rem; }
figure { display: inline-block; margin: 2px; text-align: center; }
figure img { width: 40px; height: 40px; object-fit: contain; image-rendering: pixelated;
  border: 2px solid transparent; display: block; }
figcaption { font-size: 0.7rem; color: var(--good); } .wrong figcaption { color: var(--bad); font-weight: 700; }
.wrong img { border: 2px dashed var(--bad); }
pre { padding: 0.6rem; border: 1px solid var(--line); overflow-x: auto; }
"""
