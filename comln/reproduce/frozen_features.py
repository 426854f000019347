"""Methods trained on embeddings that are not learned with them, and support vector machines on these. For Table 5."""

__all__ = [
    "DATA",
    "LINEAR",
    "METHODS",
    "PAPER_DATA",
    "SPENDING",
    "Embeddings",
    "HeadRow",
    "Row",
    "Spending",
    "Table5",
    "cell_of",
    "compute",
    "embeddings_of",
]

import dataclasses
import functools
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
from comln.recipes.experiment import GlyphsData
from comln.reproduce.counted_training import Cell, Exam, train_cell
from comln.reproduce.frozen_embeddings import Supervision, kept_embeddings, unit_norm
from comln.reproduce.scores import Score, difference, score
from comln.reproduce.svm_heads import HEADS, SETTINGS, svm_heads
from comln.reproduce.table2 import overlap
from comln.reproduce.unit_norm_settings import CHOSEN, Settings
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
PAPER_DATA = "leo-mini-imagenet"
"""The embeddings that the paper's table is of."""

BOUND = 0.1
"""C of MetaOptNet's machine, as its authors have it."""


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
    - `difference`: accuracy minus that of MetaOptNet's machine solved exactly, task by task; `None` for that one.
    - `minus_comln`: accuracy minus that of COMLN, task by task, for each of its seeds; `None` where COMLN diverged, and
      where it has the embeddings otherwise.
    - `penalty`: C.
    """

    head: str
    shots: int
    unit_norm: bool
    tasks: int
    accuracy: tuple[float, float]
    difference: tuple[float, float] | None
    minus_comln: Score | None
    penalty: float


@dataclass(frozen=True)
class Table5:
    """All methods on the same embeddings.

    - `data`, `budget`, `spending`: what was asked for.
    - `features`: numbers of an embedding.
    - `supervised_accuracy`: of the network on its training classes; `None` for embeddings that were given.
    - `mean_square_norm`: of the embeddings of the test split, before any division.
    - `unit_norm`: whether the methods have them divided by their norms.
    - `rows`, `heads`: the results.
    - `environment`: where they were computed.
    """

    data: str
    budget: Budget
    spending: Spending
    features: int
    supervised_accuracy: float | None
    mean_square_norm: float
    unit_norm: bool
    rows: tuple[Row, ...]
    heads: tuple[HeadRow, ...]
    environment: dict[str, Any]


def compute(work: Workspace) -> Table5:
    """Make the embeddings, train the methods on them, and fit the machines: what is not there yet."""
    spending = SPENDING[work.budget]
    found = embeddings_of(work, spending)
    cells = {
        (learner, shots): cell_of(work, spending, learner, shots, found.features, _settings(work, learner, shots))
        for shots in spending.shots
        for learner in METHODS
    }
    done = {}
    for number, (key, cell) in enumerate(cells.items()):
        done[key] = train_cell(work, cell, found.used, functools.partial(_say, work, number, len(cells)))
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
        comln = done["comln", shots].accuracies(f"{shots}-shot")
        for divided in (True, False):
            work.on_progress(f"support vector machines, {shots}-shot", 0.95)
            shape = cells["comln", shots].experiment.test
            same = divided == (found.used is not found.raw)
            heads += _heads(work, found, shape, divided, spending.tasks, comln if same else None)
    return Table5(
        data=work.data,
        budget=work.budget,
        spending=spending,
        features=found.features,
        supervised_accuracy=found.supervised_accuracy,
        mean_square_norm=float(np.mean(np.sum(np.square(found.raw["test"].examples), axis=1))),
        unit_norm=found.used is not found.raw,
        rows=tuple(rows),
        heads=tuple(heads),
        environment=_environment(work),
    )


def _environment(work: Workspace) -> dict[str, Any]:
    """Return where it was computed, with the library whose machines it compares with."""
    where = work.environment()
    return where | {"versions": where["versions"] | {"scikit-learn": version("scikit-learn")}}


def _say(work: Workspace, number: int, count: int, what: str, done: float) -> None:
    work.on_progress(what, 0.2 + 0.7 * (number + done) / count)


@dataclass(frozen=True)
class Embeddings:
    """The embeddings of a data set.

    - `raw`, `used`: by split, as they are, and as the methods have them: those of the glyphs are of norm one.
    - `supervised_accuracy`: of the network that they are of; `None` for embeddings that were given.
    """

    raw: dict[str, Split]
    used: dict[str, Split]
    supervised_accuracy: float | None

    @property
    def features(self) -> int:
        """How many numbers an embedding has."""
        return self.raw["test"].examples.shape[1]


def embeddings_of(work: Workspace, spending: Spending) -> Embeddings:
    """Return the embeddings of the data set, which are made here for the glyphs."""
    if work.data != "glyphs":
        data = find(f"{work.data}-5way-1shot", "comln", "house").data
        assert isinstance(data, PreparedEmbeddings)
        raw = dataclasses.replace(data, folder=work.root).load()
        return Embeddings(raw, raw, None)
    work.on_progress("embeddings", 0.0)
    supervision = Supervision(Conv4Config(spending.filters, scale_output=False), spending.supervised_updates)

    def on_update(update: int, loss: float) -> None:
        done = update / supervision.updates
        work.on_progress(f"embeddings: update {update} of {supervision.updates}, loss {loss:.2f}", 0.2 * done)

    made = kept_embeddings(work.folder, supervision, GlyphsData().load(), on_update)
    work.made_by(made.commit)
    return Embeddings(made.splits, unit_norm(made.splits), made.accuracy)


def _settings(work: Workspace, learner: str, shots: int) -> Settings:
    return CHOSEN.get((learner, shots), {}) if work.data == "glyphs" else {}


def cell_of(work: Workspace, spending: Spending, learner: str, shots: int, features: int, settings: Settings) -> Cell:
    """Return what trains a learner on embeddings of so many numbers: its recipe with these settings.

    The last state counts.
    """
    name = work.data if work.data != "glyphs" else PAPER_DATA
    experiment = find(f"{name}-5way-{shots}shot", learner, "house")
    changed: Any = settings
    experiment = dataclasses.replace(
        experiment,
        learner=dataclasses.replace(experiment.learner, **changed),
        name=f"{work.data}-embeddings-5way-{shots}shot",
        data=PreparedEmbeddings(f"{work.data}-embeddings" if work.data == "glyphs" else name, work.root, features),
        steps=spending.updates or experiment.steps,
        validate_every=0,
        patience=0,
    )
    tests = {f"{shots}-shot": Exam(experiment.test)}
    return Cell(f"{experiment.name}-{learner}", experiment, spending.seeds, tests, spending.tasks)


def _heads(
    work: Workspace, found: Embeddings, shape: EpisodeShape, divided: bool, tasks: int, comln: np.ndarray | None
) -> list[HeadRow]:
    splits, shots = (unit_norm(found.raw) if divided else found.raw), shape.shots
    # Its own bound is that of embeddings which are not divided.
    bound = _settings(work, "metaoptnet-svm", shots).get("bound", BOUND) if divided else BOUND
    part = work.kept(
        f"machines-{work.data}-{shots}shot-{'unit' if divided else 'raw'}",
        {
            "tasks": [tasks, asdict(shape)],
            "bound": bound,
            "data_hash": content_hash(splits),
            "heads": HEADS,
            "settings": SETTINGS,
            "scikit-learn": version("scikit-learn"),
        },
        lambda: [asdict(machine) for machine in svm_heads(splits, shape, tasks, bound)],
    )
    exact = np.array(next(machine["accuracies"] for machine in part if machine["head"] == "exact"))
    rows = []
    for machine in part:
        name, values = machine["head"], np.array(machine["accuracies"])
        paired = None if name == "exact" else mean_and_ci95(values - exact[: len(values)])
        # The tasks are those that COMLN is tested on.
        behind = None if comln is None else difference(np.tile(values, (len(comln), 1)), comln)
        accuracy = mean_and_ci95(values)
        rows.append(HeadRow(name, shots, divided, len(values), accuracy, paired, behind, machine["penalty"]))
    return rows
