"""Table 5: the methods on embeddings that are not learned with them, and MetaOptNet's solver on these (E.4)."""

__all__ = [
    "DATA",
    "FILES",
    "HeadRow",
    "Row",
    "Table5",
    "compute",
    "describe",
    "draw",
    "facts",
    "numbers",
    "restore",
    "tables",
    "write",
]

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from comln.data.prepared import PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.source import Split, content_hash
from comln.evaluate import mean_and_ci95
from comln.recipes import find
from comln.recipes.backbones import Conv4Config
from comln.recipes.benchmarks import Number, published
from comln.recipes.experiment import Experiment, GlyphsData
from comln.reproduce.counted_training import Cell, Exam, train_cell
from comln.reproduce.facts import Fact, as_html, as_lines, judged
from comln.reproduce.few_shot_cells import how_to_read, title_of
from comln.reproduce.frozen_embeddings import Supervision, kept_embeddings, unit_norm
from comln.reproduce.measure import environment
from comln.reproduce.page import STYLE, Page, Table, as_json, as_text, render, write_files
from comln.reproduce.scores import Score, difference, in_percent, is_within, score
from comln.reproduce.svm_heads import HEADS, svm_heads
from comln.reproduce.table2 import overlap
from comln.reproduce.workspace import Budget, Workspace
from comln.run import converter

FILES = ("table5.json", "table5.svg", "table5.png", "index.html")
"""What `write` writes."""

DATA = ("glyphs", "leo-mini-imagenet", "leo-tiered-imagenet")
"""Embeddings that it can be computed on; those of the glyphs are made here."""

LINEAR = (
    "comln",
    "maml",
    "anil",
    "meta-sgd",
    "imaml",
    "leap",
    "r2d2",
    "lrd2",
    "metaoptnet-rr",
    "metaoptnet-svm",
    "protonet",
)
"""Methods whose head is one linear layer on the embeddings."""

METHODS = (*LINEAR, "leo")
ON_UNIT_NORM: Mapping[str, Mapping[str, float]] = {
    "maml": {"step": 5.0},
    "anil": {"step": 5.0},
    "meta-sgd": {"initial_step": 20.0},
    "imaml": {"step": 5.0, "proximal": 0.01},
    "leap": {"step": 5.0},
}
"""Of the methods whose recipe is for a whole network: what a linear head on embeddings of norm one needs instead, the
best of two to five values tried on 1-shot tasks of the validation classes. With its recipe's step MAML came to 55 %."""

ALIKE = 0.02
"""Accuracies that differ by less are alike."""

SAME_SOLUTION = 0.01
PAPER_DATA = "leo-mini-imagenet"


@dataclass(frozen=True)
class Spending:
    """What a budget buys.

    - `supervised_updates`, `filters`: of the network that makes the embeddings.
    - `updates`: of each method; `None` for those of the recipe.
    - `tasks`: of each test.
    - `seeds`: of each training.
    - `shots`: of the tasks.
    """

    supervised_updates: int
    filters: int
    updates: int | None
    tasks: int
    seeds: tuple[int, ...]
    shots: tuple[int, ...] = (1, 5)


SPENDING = {
    Budget.SMOKE: Spending(20, 8, 10, 20, (0,), (1,)),
    Budget.COMMITTED: Spending(800, 64, None, 600, (0, 1, 2)),
    Budget.FULL: Spending(5000, 64, 10_000, 1000, (0, 1, 2)),
}


@dataclass(frozen=True)
class Row:
    """One method, on tasks of so many shots.

    - `learner`, `shots`: which.
    - `accuracy`: on the test tasks; `None` where training diverged.
    - `difference`: accuracy minus that of COMLN; `None` for COMLN itself, or where either diverged.
    - `failed_tasks`: test tasks that could not be adapted to, counted as wrong, over all seeds.
    - `horizons`: T after training, of each seed; none for methods without.
    - `paper`, `agrees`: what the paper has on these embeddings, in percent, and whether the intervals overlap.
    """

    learner: str
    shots: int
    accuracy: Score | None
    difference: Score | None
    failed_tasks: int
    horizons: tuple[float, ...]
    paper: Number | None
    agrees: bool | None


@dataclass(frozen=True)
class HeadRow:
    """One kind of support vector machine; pairs are a mean and the half-width of its 95 % interval.

    - `head`, `shots`, `unit_norm`: which, on what tasks, and whether embeddings were divided by their norms.
    - `tasks`: how many.
    - `accuracy`: on them.
    - `difference`: accuracy minus that of MetaOptNet's machine solved exactly, task by task.
    - `reason`: why there are none; empty where there are.
    """

    head: str
    shots: int
    unit_norm: bool
    tasks: int
    accuracy: tuple[float, float] | None
    difference: tuple[float, float] | None
    reason: str = ""


@dataclass(frozen=True)
class Table5:
    """All methods on the same embeddings.

    - `data`, `budget`, `spending`: what was asked for.
    - `features`: numbers of an embedding.
    - `supervised_accuracy`: of the network on its training classes; `None` for embeddings that were given.
    - `mean_square_norm`: of the embeddings of the test split, before any division.
    - `rows`, `heads`: the results.
    - `environment`: where they were computed.
    """

    data: str
    budget: Budget
    spending: Spending
    features: int
    supervised_accuracy: float | None
    mean_square_norm: float
    rows: tuple[Row, ...]
    heads: tuple[HeadRow, ...]
    environment: dict[str, Any]


def compute(work: Workspace) -> Table5:
    """Make the embeddings, train the methods on them, and fit the machines: what is not there yet."""
    spending, where = SPENDING[work.budget], environment()
    raw, supervised_accuracy = _embeddings(work, spending)
    used = unit_norm(raw) if work.data == "glyphs" else raw
    features = raw["test"].examples.shape[1]
    cells = {
        (learner, shots): _cell(work, spending, learner, shots, features)
        for shots in spending.shots
        for learner in METHODS
    }
    done = {}
    for number, (key, cell) in enumerate(cells.items()):
        done[key] = train_cell(work, cell, used, functools.partial(_say, work, number, len(cells)))
    rows = []
    for learner, shots in cells:
        trained = done[learner, shots]
        accuracies = trained.accuracies(f"{shots}-shot")
        accuracy = None if accuracies is None else score(accuracies)
        paper = published(f"{work.data}-5way-{shots}shot", learner)
        comln = done["comln", shots].accuracies(f"{shots}-shot")
        rows.append(
            Row(
                learner=learner,
                shots=shots,
                accuracy=accuracy,
                difference=None if learner == "comln" else difference(accuracies, comln),
                failed_tasks=sum(sum(run.failed.values()) for run in trained.runs),
                horizons=tuple(run.scalars["horizon"] for run in trained.runs if "horizon" in run.scalars),
                paper=paper,
                agrees=overlap(accuracy, paper),
            )
        )
    heads = []
    for shots in spending.shots:
        for divided in (True, False):
            work.on_progress(f"support vector machines, {shots}-shot", 0.95)
            heads += _heads(work, unit_norm(raw) if divided else raw, shots, divided, spending.tasks)
    norm = float(np.mean(np.sum(np.square(raw["test"].examples), axis=1)))
    return Table5(
        data=work.data,
        budget=work.budget,
        spending=spending,
        features=features,
        supervised_accuracy=supervised_accuracy,
        mean_square_norm=norm,
        rows=tuple(rows),
        heads=tuple(heads),
        environment=where,
    )


def _say(work: Workspace, number: int, count: int, what: str, done: float) -> None:
    work.on_progress(what, 0.2 + 0.7 * (number + done) / count)


def _embeddings(work: Workspace, spending: Spending) -> tuple[dict[str, Split], float | None]:
    if work.data != "glyphs":
        data = find(f"{work.data}-5way-1shot", "comln", "house").data
        assert isinstance(data, PreparedEmbeddings)
        return dataclasses.replace(data, folder=work.root).load(), None
    work.on_progress("embeddings", 0.0)
    supervision = Supervision(Conv4Config(spending.filters, scale_output=False), spending.supervised_updates)

    def on_update(update: int, loss: float) -> None:
        done = update / supervision.updates
        work.on_progress(f"embeddings: update {update} of {supervision.updates}, loss {loss:.2f}", 0.2 * done)

    return kept_embeddings(work.folder, supervision, GlyphsData().load(), on_update)


def _experiment(work: Workspace, spending: Spending, learner: str, shots: int, features: int) -> Experiment:
    """Return the recipe of embeddings, for those of this length; the last state counts."""
    name = work.data if work.data != "glyphs" else PAPER_DATA
    experiment = find(f"{name}-5way-{shots}shot", learner, "house")
    changes: Mapping[str, Any] = ON_UNIT_NORM.get(learner, {}) if work.data == "glyphs" else {}
    return dataclasses.replace(
        experiment,
        learner=dataclasses.replace(experiment.learner, **changes),
        name=f"{work.data}-embeddings-5way-{shots}shot",
        data=PreparedEmbeddings(f"{work.data}-embeddings" if work.data == "glyphs" else name, work.root, features),
        steps=spending.updates or experiment.steps,
        validate_every=0,
        patience=0,
    )


def _cell(work: Workspace, spending: Spending, learner: str, shots: int, features: int) -> Cell:
    experiment = _experiment(work, spending, learner, shots, features)
    tests = {f"{shots}-shot": Exam(experiment.test)}
    return Cell(f"{experiment.name}-{learner}", experiment, spending.seeds, tests, spending.tasks)


def _heads(work: Workspace, splits: dict[str, Split], shots: int, divided: bool, tasks: int) -> list[HeadRow]:
    versions = environment()["versions"]
    part = work.kept(
        f"machines-{work.data}-{shots}shot-{'unit' if divided else 'raw'}",
        {
            "tasks": tasks,
            "data_hash": content_hash(splits),
            "heads": HEADS,
            "versions": {name: versions[name] for name in ("comln", "jax", "jaxlib")},
        },
        lambda: [asdict(found) for found in svm_heads(splits["test"], EpisodeShape(5, shots), tasks)],
    )
    exact = np.array(next(found["accuracies"] for found in part if found["head"] == "exact"))
    rows = []
    for found in part:
        values = np.array(found["accuracies"])
        if not len(values):
            rows.append(HeadRow(found["head"], shots, divided, 0, None, None, found["reason"]))
            continue
        paired = None if found["head"] == "exact" else mean_and_ci95(values - exact[: len(values)])
        rows.append(HeadRow(found["head"], shots, divided, len(values), mean_and_ci95(values), paired))
    return rows


# What is concluded


def facts(result: Table5) -> tuple[Fact, ...]:
    """Return what the paper says of this table (E.4), judged."""
    return tuple(_facts(result))


def _facts(result: Table5) -> Iterator[Fact]:
    for shots in result.spending.shots:
        others = [
            (row, row.difference)
            for row in result.rows
            if row.shots == shots and row.learner in LINEAR and row.difference is not None
        ]
        within = [is_within(value, ALIKE) for _, value in others]
        holds = False if False in within else None if None in within or not within else True
        words = "; ".join(f"{row.learner} {in_percent(value, '+')}" for row, value in others)
        yield judged(
            f"On frozen features all methods with a linear head are alike ({shots}-shot).",
            holds,
            f"minus COMLN: {words} points; alike is within {100 * ALIKE:g}.",
        )
    yield _short_solver(result)
    yield _separate_machines(result)


def _short_solver(result: Table5) -> Fact:
    first = HEADS[0]
    found = [(row, row.difference) for row in result.heads if row.head == first and row.difference is not None]
    lost = [value[0] + value[1] < -SAME_SOLUTION for _, value in found]
    close = [abs(value[0]) + value[1] <= SAME_SOLUTION for _, value in found]
    words = "; ".join(
        f"{row.shots}-shot, {_norm_words(row.unit_norm)}: {100 * value[0]:+.2f} ± {100 * value[1]:.2f}"
        for row, value in found
    )
    return judged(
        "MetaOptNet's few iterations of its solver cost it accuracy on frozen features.",
        True if any(lost) else False if all(close) else None,
        f"3 iterations minus the exact solution: {words} points.",
    )


def _separate_machines(result: Table5) -> Fact:
    best = {}
    for row in result.heads:
        if row.head.startswith("scikit-learn") and row.accuracy is not None:
            best[row.shots] = max(best.get(row.shots, (0.0, 0.0)), row.accuracy)
    pairs = [
        (shots, accuracy, row.accuracy)
        for shots, accuracy in best.items()
        for row in result.rows
        if (row.learner, row.shots) == ("comln", shots) and row.accuracy is not None
    ]
    words = "; ".join(
        f"{shots}-shot {100 * a[0]:.2f} ± {100 * a[1]:.2f} against COMLN's {in_percent(b)}" for shots, a, b in pairs
    )
    behind = [b.mean - a[0] for _, a, b in pairs]
    holds = all(x <= ALIKE for x in behind) if behind else None
    return judged("Support vector machines fitted one by one match the other methods.", holds, f"{words or 'none'}.")


def _norm_words(unit: bool) -> str:
    return "norm one" if unit else "as they are"


# What is drawn, written and printed


def draw(result: Table5) -> Figure:
    """Return the picture: accuracy of each method, a dot for each seed, and below of each machine."""
    with matplotlib.rc_context(STYLE):
        shots = result.spending.shots
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        for axes, count in zip(figure.subplots(1, len(shots), squeeze=False)[0], shots, strict=True):
            lines: list[tuple[str, float, float, tuple[float, ...], str]] = []
            for row in result.rows:
                if row.shots == count and row.accuracy is not None:
                    colour = "#d55e00" if row.learner == "comln" else "#0072b2"
                    score = row.accuracy
                    lines.append((row.learner, score.mean, score.ci95, score.of_seeds, colour))
            for head in result.heads:
                if head.shots == count and head.unit_norm and head.accuracy is not None:
                    lines.append((f"SVM: {head.head}", *head.accuracy, (), "#009e73"))
            for place, (_, mean, ci95, seeds, colour) in enumerate(lines):
                axes.plot([100 * x for x in seeds], [place] * len(seeds), "o", color=colour, markersize=3, alpha=0.5)
                axes.errorbar(100 * mean, place, xerr=100 * ci95, color=colour, marker="|", markersize=9, capsize=2)
            axes.set_yticks(range(len(lines)), [line[0] for line in lines])
            axes.set(title=f"{result.data}, 5-way {count}-shot", xlabel="accuracy on unseen classes, %")
            axes.grid(axis="x", color="#8a8f9640", linewidth=0.6)
            axes.invert_yaxis()
    return figure


def numbers(result: Table5) -> dict[str, Any]:
    """Return the numbers as JSON can hold them, with the claims."""
    return {
        "target": "table5",
        **converter.unstructure(result, Table5),
        "facts": [asdict(fact) for fact in facts(result)],
    }


def restore(content: Mapping[str, Any]) -> Table5:
    """Return a result from its `numbers`."""
    rest = {name: value for name, value in content.items() if name not in ("target", "facts")}
    return converter.structure(rest, Table5)


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
    header = ["tasks", "embeddings", "machine", "accuracy, %", "minus exact, %", "test tasks"]
    body = [
        [
            f"5-way {head.shots}-shot",
            _norm_words(head.unit_norm),
            head.head,
            head.reason if head.accuracy is None else f"{100 * head.accuracy[0]:.2f} ± {100 * head.accuracy[1]:.2f}",
            "" if head.difference is None else f"{100 * head.difference[0]:+.2f} ± {100 * head.difference[1]:.2f}",
            str(head.tasks),
        ]
        for head in result.heads
    ]
    yield "Support vector machines on the same embeddings", [header, *body]


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
        f"{result.mean_square_norm:.3g}, are divided by their norms for the methods"
    )
    explanation = (
        f"<p>{origin}. Methods learn what they have besides a network, on tasks of the meta-train classes, with "
        f"seeds {', '.join(map(str, spending.seeds))}; ProtoNet learns nothing. Intervals are of 95 %, over tasks; in "
        "brackets stand the lowest and the highest seed. Differences are paired. The machines of MetaOptNet have its "
        "C of 0.1 and its ridge; those of scikit-learn have C = 1, are fitted to one task at a time, and are another "
        f"problem or another solver. {how_to_read(result.data, result.budget)}</p>{as_html(facts(result))}"
    )
    title = title_of("Table 5: methods on frozen embeddings,", result.data)
    command = f"table5 --budget {result.budget}" + ("" if result.data == "glyphs" else f" --data {result.data}")
    page = Page(title, svg, explanation, tables(result), command)
    contents = as_json(numbers(result)), svg.encode(), png, page.html(result.environment).encode()
    return write_files(folder, dict(zip(FILES, contents, strict=True)))
