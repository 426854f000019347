"""Gather what the report of a run shows, and have it written."""

__all__ = ["report_run"]

from pathlib import Path

import jax
import numpy as np

from comln.data.sampling import Sampler
from comln.episode import Episode
from comln.evaluate import Evaluation, embedded_tasks, evaluate_embedded, query_probabilities
from comln.learners import COMLN, AbstractLearner
from comln.meta_train import TrainState
from comln.recipes.experiment import Experiment
from comln.report.episode_page import EpisodePicture
from comln.report.run_report import Predictions, RunReport, write_report
from comln.run import RunFolder

TASKS_LOOKED_AT = 100
PATH_POINTS = 21
BEST, WORST = 2, 2


def report_run(
    folder: RunFolder,
    experiment: Experiment,
    state: TrainState,
    sampler: Sampler,
    result: Evaluation,
) -> Path:
    """Write the report of a finished run and return the path of its page."""
    learned, horizons, along = None, None, None
    tasks = embedded_tasks(
        state.learner.backbone, state.statistics, sampler, TASKS_LOOKED_AT, 0, experiment.normalisation
    )
    batches = list(tasks)
    learner = experiment.at_test(state.learner)
    if isinstance(learner, COMLN):
        learned = _usual_horizon(learner, batches)
        horizons = np.concatenate([[0.0], learned * np.geomspace(1e-3, 10.0, PATH_POINTS - 1)])
        along = [
            evaluate_embedded(learner.with_horizon(horizon), batches, TASKS_LOOKED_AT) for horizon in horizons.tolist()
        ]
    predictions = _predictions(learner, batches, sampler)
    report = RunReport(
        title=folder.path.resolve().name,
        command=folder.configuration()["command"],
        configuration=folder.configuration(),
        metrics=list(folder.metrics()),
        accuracy=result.mean,
        ci95=result.ci95,
        tasks=len(result.accuracies),
        failed=result.failed,
        ways=experiment.test.ways,
        shots=experiment.test.shots,
        normalisation=experiment.normalisation.value,
        learned_horizon=learned,
        own_horizons=isinstance(learner, COMLN) and learner.task_horizon is not None,
        horizons=horizons,
        accuracy_at=None if along is None else np.array([point.mean for point in along]),
        ci95_at=None if along is None else np.array([point.ci95 for point in along]),
        predictions=None if predictions is None else predictions[1],
        episodes=[] if predictions is None else _episodes(*predictions, sampler),
    )
    return write_report(report, folder.path / "report")


def _usual_horizon(learner: COMLN, batches: list[Episode]) -> float:
    """Return the learned horizon; where each task has its own, their median."""
    if learner.task_horizon is None:
        return float(learner.horizon)
    found = [np.asarray(jax.vmap(learner.horizon_for)(batch.support)) for batch in batches]
    return float(np.median(np.concatenate(found)[:TASKS_LOOKED_AT]))


def _predictions(
    learner: AbstractLearner, batches: list[Episode], sampler: Sampler
) -> tuple[np.ndarray, Predictions] | None:
    """Return the numbers of the test tasks whose adaptation worked, and what was made of them; `None` if none did."""
    probabilities = np.concatenate([np.asarray(query_probabilities(learner, batch)) for batch in batches])
    probabilities = probabilities[:TASKS_LOOKED_AT]
    worked = np.flatnonzero(np.all(np.isfinite(probabilities), axis=(1, 2)))
    if not len(worked):
        return None
    drawn = [sampler.draw(0, int(number)) for number in worked]
    ways, queries = drawn[0].query.shape
    return worked, Predictions(
        class_names=tuple(sampler.split.class_names),
        classes_of=np.array([task.classes for task in drawn]),
        ways=np.tile(np.repeat(np.arange(ways), queries), (len(worked), 1)),
        probabilities=probabilities[worked],
    )


def _episodes(numbers: np.ndarray, predictions: Predictions, sampler: Sampler) -> list[tuple[str, EpisodePicture]]:
    """Return the best and the worst of the tasks as pictures, with the class probabilities of their queries."""
    if sampler.split.examples.ndim < 3:
        return []
    order = np.argsort(np.mean(predictions.predicted != predictions.ways, axis=1), kind="stable")
    best = order[:BEST].tolist()
    worst = [place for place in order[::-1][:WORST].tolist() if place not in best]
    chosen = [("best", best), ("worst", worst)]
    return [
        (
            f"Test task {numbers[place]}: one of the {kind} of {len(numbers)}",
            _picture(numbers, place, predictions, sampler),
        )
        for kind, places in chosen
        for place in places
    ]


def _picture(numbers: np.ndarray, place: int, predictions: Predictions, sampler: Sampler) -> EpisodePicture:
    drawn, split = sampler.draw(0, int(numbers[place])), sampler.split
    ways, shots = drawn.support.shape
    return EpisodePicture(
        class_names=tuple(split.class_names[c] for c in drawn.classes),
        support=split.examples[drawn.support.ravel()],
        support_classes=np.repeat(np.arange(ways), shots),
        query=split.examples[drawn.query.ravel()],
        query_classes=predictions.ways[place],
        probabilities=predictions.probabilities[place],
    )
