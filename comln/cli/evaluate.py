"""`comln evaluate RUN`: accuracy of a trained run on fixed tasks."""

__all__ = ["run"]

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from comln.backbones import Normalisation
from comln.checkpoint import CheckpointError
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import counting
from comln.data.data_error import DataError
from comln.data.sampling import EpisodeShape, Sampler
from comln.data.source import Split, content_hash, split_of
from comln.evaluate import Evaluation, evaluate
from comln.recipes.experiment import DataConfig, Experiment, GlyphsData
from comln.run import Run, RunError, load_run


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a trained run on fixed tasks: the same tasks for every run, by seed."""

    run: Annotated[Path, tyro.conf.Positional]
    """folder that `comln train` wrote, or file that `comln export` wrote"""
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
    data_folder: Path | None = None
    """where `comln data prepare` put the data, if neither where it was trained nor in your cache"""
    json: bool = False
    """print JSON only"""


def run(arguments: list[str]) -> int:
    """Evaluate and print the accuracy; return the exit code."""
    options = parse(EvaluateOptions, arguments, "evaluate")
    quiet_jax()
    try:
        loaded = load_run(options.run)
        experiment, learner = loaded.experiment, loaded.learner
        usual = experiment.test
        shape = EpisodeShape(
            ways=usual.ways if options.ways is None else options.ways,
            shots=usual.shots if options.shots is None else options.shots,
            queries=usual.queries if options.queries is None else options.queries,
        )
        if options.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {options.seed}.")
        data = experiment.data if options.data_folder is None else _at(experiment.data, options.data_folder)
        splits = _load(data, options)
        if content_hash(splits) != loaded.splits_hash:
            raise RunError(
                f"The data set here is not the one that {options.run} was trained on (other fonts or library "
                "versions). Evaluate where it was trained, or train again."
            )
        sampler = Sampler(split_of(splits, options.split), shape)
        ways_note = learner.ways_note(shape.ways)
        with counting("evaluating", options.tasks) as on_progress:
            result = evaluate(
                experiment.at_test(learner),
                loaded.statistics,
                sampler,
                options.tasks,
                options.seed,
                experiment.normalisation,
                on_progress,
            )
    except (RunError, CheckpointError, ValueError) as error:
        return fail(error)
    for note in (ways_note, _unfinished(loaded, experiment)):
        if note:
            print(f"comln: {note}", file=sys.stderr)
    summary = {
        "accuracy": result.mean,
        "ci95": result.ci95,
        "tasks": options.tasks,
        "failed_tasks": result.failed,
        "ways": shape.ways,
        "shots": shape.shots,
        "queries": shape.queries,
        "split": options.split,
        "step": loaded.step,
        "seed": options.seed,
        "normalisation": experiment.normalisation.value,
        "note": ways_note,
    }
    if options.json:
        print(json.dumps(summary))
    else:
        print(describe(result, shape, options.split, experiment.normalisation))
    return 0 if result.failed < options.tasks else 1


def _at(data: DataConfig, folder: Path) -> DataConfig:
    if isinstance(data, GlyphsData):
        raise ValueError("--data-folder is for prepared data; this run was trained on glyphs, which need none.")
    return dataclasses.replace(data, folder=folder)


def _load(data: DataConfig, options: EvaluateOptions) -> dict[str, Split]:
    try:
        return data.load()
    except DataError as error:
        hint = "" if options.data_folder else " Where they lie elsewhere, add --data-folder."
        raise ValueError(f"{error}{hint}") from error


def _unfinished(loaded: Run, experiment: Experiment) -> str:
    step, steps = loaded.last_step, experiment.steps
    more = step < steps and not loaded.selection.is_exhausted(experiment.patience)
    return f"this run is at step {step} of {steps}; `comln train --resume` goes on with it." if more else ""


def describe(result: Evaluation, shape: EpisodeShape, split: str, normalisation: Normalisation) -> str:
    """Return the result in one line."""
    tasks = len(result.accuracies)
    failed = f"; the adaptation failed on {result.failed} of them, which count as wrong" if result.failed else ""
    return (
        f"{shape.ways}-way {shape.shots}-shot accuracy on {tasks} {split} tasks: {100 * result.mean:.2f} % "
        f"± {100 * result.ci95:.2f} (95 % CI; {normalisation.value} batch statistics{failed})"
    )
