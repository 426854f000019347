"""Gather what the report of a run shows, and have it written."""

__all__ = ["report_run"]

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from comln.data.sampling import Sampler
from comln.episode import Episode
from comln.evaluate import Evaluation, embedded_tasks, evaluate_embedded, query_probabilities
from comln.learners import COMLN, AbstractLearner
from comln.meta_train import TrainState
from comln.recipes.experiment import Experiment
from comln.report.episode_page import EpisodePicture
from comln.report.run_report import RunReport, write_report
from comln.run import RunFolder

TASKS_ALONG_PATH = 100
PATH_POINTS = 21
EPISODES_SHOWN = 4


def report_run(
    folder: RunFolder,
    experiment: Experiment,
    state: TrainState,
    sampler: Sampler,
    result: Evaluation,
) -> Path:
    """Write the report of a finished run and return the path of its page."""
    learned, horizons, along = None, None, None
    if isinstance(state.learner, COMLN):
        learned = float(state.learner.horizon)
        horizons = np.concatenate([[0.0], learned * np.geomspace(1e-3, 10.0, PATH_POINTS - 1)])
        tasks = embedded_tasks(
            state.learner.backbone, state.statistics, sampler, TASKS_ALONG_PATH, 0, experiment.normalisation
        )
        batches = list(tasks)
        along = [_evaluate_at(state.learner, horizon, batches) for horizon in horizons]
    report = RunReport(
        title=folder.path.name,
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
        horizons=horizons,
        accuracy_at=None if along is None else np.array([point.mean for point in along]),
        ci95_at=None if along is None else np.array([point.ci95 for point in along]),
        episodes=_episodes(experiment.at_test(state.learner), state, sampler, experiment),
    )
    return write_report(report, folder.path / "report")


def _evaluate_at(learner: COMLN, horizon: float, batches: list[Episode]) -> Evaluation:
    log_horizon = jnp.log(jnp.asarray(horizon, learner.log_horizon.dtype))
    stopped = eqx.tree_at(lambda learner: learner.log_horizon, learner, log_horizon)
    return evaluate_embedded(stopped, batches, TASKS_ALONG_PATH)


def _episodes(
    learner: AbstractLearner, state: TrainState, sampler: Sampler, experiment: Experiment
) -> list[EpisodePicture]:
    """Return the first test tasks as pictures, with the class probabilities of their queries."""
    batches = embedded_tasks(learner.backbone, state.statistics, sampler, EPISODES_SHOWN, 0, experiment.normalisation)
    probabilities = np.asarray(query_probabilities(learner, next(batches)))
    pictures = []
    for index in range(EPISODES_SHOWN):
        drawn, split = sampler.draw(0, index), sampler.split
        ways, shots, queries = *drawn.support.shape, drawn.query.shape[1]
        support, query = split.examples[drawn.support.ravel()], split.examples[drawn.query.ravel()]
        if support.ndim < 3:
            return []
        pictures.append(
            EpisodePicture(
                class_names=tuple(split.class_names[c] for c in drawn.classes),
                support=support,
                support_classes=np.repeat(np.arange(ways), shots),
                query=query,
                query_classes=np.repeat(np.arange(ways), queries),
                probabilities=probabilities[index],
            )
        )
    return pictures
