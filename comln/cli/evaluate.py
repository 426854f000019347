"""`comln evaluate RUN`: accuracy of a trained run on fixed tasks."""

__all__ = ["run"]

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import counting
from comln.data.sampling import EpisodeShape, Sampler
from comln.evaluate import evaluate
from comln.run import RunError, load_run


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained run on fixed tasks: the same tasks for every run, by seed."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder that `comln train` wrote"""
    ways: int | None = None
    """classes of a task (default: as the recipe's test tasks)"""
    shots: int | None = None
    """support examples of a class"""
    queries: int | None = None
    """query examples of a class"""
    tasks: int = 1000
    """number of tasks"""
    split: Literal["train", "val", "test"] = "test"
    """classes to draw from"""
    seed: int = 0
    """of the tasks"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Evaluate and print the accuracy; return the exit code."""
    options = parse(EvaluateOptions, arguments, "evaluate")
    quiet_jax()
    try:
        loaded = load_run(options.run)
        experiment, learner = loaded.experiment, loaded.state.learner
        usual = experiment.test
        shape = EpisodeShape(
            ways=usual.ways if options.ways is None else options.ways,
            shots=usual.shots if options.shots is None else options.shots,
            queries=usual.queries if options.queries is None else options.queries,
        )
        if options.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {options.seed}.")
        sampler = Sampler(experiment.data.load()[options.split], shape)
        with counting("evaluating", options.tasks) as on_progress:
            result = evaluate(
                learner,
                loaded.state.statistics,
                sampler,
                options.tasks,
                options.seed,
                experiment.normalisation,
                on_progress,
            )
    except (RunError, CheckpointError, ValueError) as error:
        return fail(error)
    if learner.ways_note(shape.ways):
        print(f"comln: {learner.ways_note(shape.ways)}", file=sys.stderr)
    summary = {
        "accuracy": result.mean,
        "ci95": result.ci95,
        "tasks": options.tasks,
        "failed_tasks": result.failed,
        "ways": shape.ways,
        "shots": shape.shots,
        "queries": shape.queries,
        "split": options.split,
        "seed": options.seed,
        "normalisation": experiment.normalisation.value,
        "note": learner.ways_note(shape.ways),
    }
    if options.json:
        print(json.dumps(summary))
    else:
        print(describe(result.mean, result.ci95, options.tasks, shape, options.split, experiment.normalisation.value))
    return 0


def describe(accuracy: float, ci95: float, tasks: int, shape: EpisodeShape, split: str, normalisation: str) -> str:
    """Return the result in one line."""
    return (
        f"{shape.ways}-way {shape.shots}-shot accuracy on {tasks} {split} tasks: "
        f"{100 * accuracy:.2f} % ± {100 * ci95:.2f} (95 % CI; {normalisation} batch statistics)"
    )
