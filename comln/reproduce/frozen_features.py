"""Methods trained on embeddings that are not learned with them, and support vector machines on these. For Table 5."""

__all__ = [
    "DATA",
    "LINEAR",
    "METHODS",
    "PAPER_DATA",
    "SPENDING",
    "HeadRow",
    "Row",
    "Spending",
    "Table5",
    "compute",
]

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from comln.data.prepared import PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.source import Split, content_hash
from comln.evaluate import mean_and_ci95
from comln.recipes import find
from comln.recipes.backbones import Conv4Config
from comln.recipes.benchmarks import Number, published
from comln.recipes.experiment import Experiment, GlyphsData
from comln.reproduce.counted_training import Cell, Exam, train_cell
from comln.reproduce.frozen_embeddings import Supervision, kept_embeddings, unit_norm
from comln.reproduce.measure import environment
from comln.reproduce.scores import Score, difference, score
from comln.reproduce.svm_heads import HEADS, svm_heads
from comln.reproduce.table2 import overlap
from comln.reproduce.workspace import Budget, Workspace

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
"""What is compared; LEO learns more than a linear layer."""
ON_UNIT_NORM: Mapping[str, Mapping[str, float]] = {
    "maml": {"step": 5.0},
    "anil": {"step": 5.0},
    "meta-sgd": {"initial_step": 20.0},
    "imaml": {"step": 5.0, "proximal": 0.01},
    "leap": {"step": 5.0},
}
"""Of the methods whose recipe is for a whole network: what a linear head on embeddings of norm one needs instead, the
best of two to five values tried on 1-shot tasks of the validation classes. With its recipe's step MAML came to 55 %."""

PAPER_DATA = "leo-mini-imagenet"
"""The embeddings that the paper's table is of."""


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
"""By budget."""


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
            "scikit-learn": version("scikit-learn"),
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
