"""`comln train`: meta-train a learner, evaluate it on unseen classes, write the report."""

__all__ = ["run"]

import itertools
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from comln.checkpoint import CheckpointError
from comln.cli.evaluate import describe
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import TrainingProgress, counting
from comln.cli.report import report_run
from comln.data.sampling import Sampler
from comln.data.source import content_hash
from comln.evaluate import evaluate
from comln.meta_train import Divergence, StepReport, TrainState, meta_train, start_training
from comln.recipes import NAMES, find
from comln.recipes.experiment import Experiment
from comln.run import RunError, RunFolder, converter

SECONDS_BETWEEN_CHECKPOINTS = 20.0
TEST_SEED = 0


@dataclass(frozen=True)
class TrainOptions:
    """Meta-train a learner, evaluate it on tasks of unseen classes, and write a report."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    """what is trained; `comln recipes` lists the named ones, each field can be overridden"""
    recipe: Annotated[str, tyro.conf.Positional] = "glyphs-5way-1shot"
    """<data>-<N>way-<K>shot; see `comln recipes`"""
    learner: str = "comln"
    """the method; `comln recipes` lists them"""
    protocol: str = "house"
    """house: one recipe for all methods; original: as its authors train it; paper: SGD 0.1 on everything"""
    out: Path | None = None
    """folder of the run (default: runs/<recipe>-<learner>-<seed>)"""
    seed: int = 0
    """of the initial weights and the training tasks"""
    tasks: int = 1000
    """tasks of the final evaluation"""
    checkpoint_every: int | None = None
    """steps between checkpoints (default: about 20 seconds of work)"""
    resume: bool = False
    """go on from the newest checkpoint in --out"""
    json: bool = False
    """print the result as JSON only"""


def run(arguments: list[str]) -> int:
    """Train, evaluate, report; return the exit code."""
    quiet_jax()
    began = time.monotonic()
    try:
        options = _options(arguments)
        folder = RunFolder(options.out or Path("runs") / f"{options.recipe}-{options.learner}-{options.seed}")
        _check(options, folder)
        splits = options.experiment.data.load()
        samplers = [Sampler(splits["train"], shape) for shape in options.experiment.train_shapes()]
        test_sampler = Sampler(splits["test"], options.experiment.test)
        # A method that cannot do the test tasks says so before it is trained.
        options.experiment.build(options.seed).ways_note(options.experiment.test.ways)
        command = shlex.join(["comln", "train", *arguments])
        state = _start(options, folder, content_hash(splits), command)
    except (ValueError, RunError, CheckpointError, OSError) as error:
        return fail(error)
    try:
        state = _train(options, folder, samplers, state)
        return _finish(options, folder, test_sampler, state, time.monotonic() - began)
    except Divergence as error:
        return fail(_explain(error, folder), code=1)
    except CheckpointError as error:
        return fail(error, code=1)
    except OSError as error:
        return fail(
            f"{folder.path} cannot be written ({error.strerror or error}). Free space and add --resume.", code=1
        )
    except KeyboardInterrupt:
        newest = folder.checkpoints.steps()[-1:] or [0]
        return fail(f"interrupted. Add --resume to the same command to go on from step {newest[0]}.", code=130)


def _options(arguments: Sequence[str]) -> TrainOptions:
    """Return the options: the recipe, learner and protocol that are named, with their fields overridden."""

    def value_of(flag: str, otherwise: str) -> str:
        for word, following in itertools.pairwise([*arguments, otherwise]):
            if word == flag or word.startswith(f"{flag}="):
                return following if word == flag else word.removeprefix(f"{flag}=")
        return otherwise

    # Learner, protocol and the recipe's network decide which options there are; the recipe's defaults are more. It may
    # stand anywhere, and only a whole parse tells it from the value of an option: the same words are read again.
    method = value_of("--learner", TrainOptions.learner), value_of("--protocol", TrainOptions.protocol)
    likely = [
        word
        for before, word in itertools.pairwise(["", *arguments])
        if word in NAMES and (before in ("--resume", "--json") or not before.startswith("--"))
    ]
    first = likely[0] if likely else TrainOptions.recipe
    named = parse(TrainOptions, arguments, "train", TrainOptions(find(first, *method), first))
    return parse(TrainOptions, arguments, "train", TrainOptions(find(named.recipe, *method)))


def _check(options: TrainOptions, folder: RunFolder) -> None:
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be at least 0 and below 2^32, got {options.seed}.")
    if options.tasks < 2:
        raise ValueError(f"--tasks must be at least 2, got {options.tasks}.")
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"{folder.path} is a file. Choose a folder with --out.")
    if options.checkpoint_every is not None and options.checkpoint_every < 1:
        raise ValueError(f"--checkpoint-every must be at least 1 step, got {options.checkpoint_every}.")
    if options.experiment.steps < 1 or options.experiment.tasks_per_step < 1:
        raise ValueError("--steps and --tasks-per-step must be at least 1.")
    if folder.holds_run() and not options.resume:
        raise ValueError(f"{folder.path} already holds a run. Add --resume to go on with it, or choose another --out.")
    if folder.holds_run():
        before = folder.configuration()
        if (before.get("experiment"), before.get("seed")) != (converter.unstructure(options.experiment), options.seed):
            raise ValueError(
                f"{folder.path} holds a run of another configuration or seed. Resume it with the command that started "
                "it, or choose another --out."
            )


def _start(options: TrainOptions, folder: RunFolder, data_hash: str, command: str) -> TrainState:
    """Return where to go on from; the first start writes the configuration."""
    learner = options.experiment.build(options.seed)
    state = start_training(learner, options.experiment.optimiser.build(learner, options.experiment.steps))
    if not folder.holds_run():
        folder.start(options.experiment, options.learner, options.protocol, options.seed, data_hash, command)
        return state
    if folder.configuration()["data_hash"] != data_hash:
        raise ValueError(
            f"The data set is not the one that {folder.path} was trained on (other fonts or library versions). "
            "Resume where it was started, or choose another --out."
        )
    restored = folder.checkpoints.restore_newest(state)
    if restored is None:
        print(f"comln: no checkpoint in {folder.path} yet; starting from the beginning.", file=sys.stderr)
        folder.keep_metrics_until(0)
        return state
    folder.keep_metrics_until(int(restored[0].step))
    return restored[0]


def _train(options: TrainOptions, folder: RunFolder, samplers: Sequence[Sampler], state: TrainState) -> TrainState:
    experiment = options.experiment
    saved = time.monotonic()

    with (
        TrainingProgress(experiment.steps, int(state.step)) as progress,
        (folder.path / "metrics.jsonl").open("a") as log,
    ):

        def on_step(report: StepReport) -> None:
            progress.show(report)
            values = {"step": report.step, **report.values, "tasks_per_second": report.tasks_per_second}
            log.write(json.dumps(values) + "\n")
            log.flush()

        def on_state(state: TrainState) -> None:
            nonlocal saved
            step = int(state.step)
            if options.checkpoint_every is None:
                due = time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS
            else:
                due = step % options.checkpoint_every == 0
            if due or step == experiment.steps:
                folder.checkpoints.save(step, state, {"seed": options.seed})
                saved = time.monotonic()

        return meta_train(
            state,
            experiment.optimiser.build(state.learner, experiment.steps),
            samplers,
            steps=experiment.steps,
            tasks_per_step=experiment.tasks_per_step,
            seed=options.seed,
            on_step=on_step,
            on_state=on_state,
        )


def _explain(error: Divergence, folder: RunFolder) -> str:
    steps = folder.checkpoints.steps()
    saved = f"The last good checkpoint is of step {steps[-1]}" if steps else "No checkpoint was written yet"
    return f"{error} {saved}, in {folder.path}. Choose another --out with, for example, --optimiser.learning-rate 1e-3."


def _finish(
    options: TrainOptions, folder: RunFolder, test_sampler: Sampler, state: TrainState, training_s: float
) -> int:
    experiment = options.experiment
    with counting("evaluating on unseen classes", options.tasks) as on_progress:
        result = evaluate(
            experiment.at_test(state.learner),
            state.statistics,
            test_sampler,
            options.tasks,
            TEST_SEED,
            experiment.normalisation,
            on_progress,
        )
    summary = {
        "accuracy": result.mean,
        "ci95": result.ci95,
        "tasks": options.tasks,
        "failed_tasks": result.failed,
        "normalisation": experiment.normalisation.value,
        "seed": TEST_SEED,
        "training_s": round(training_s, 1),
        **{name: float(value) for name, value in state.learner.scalars().items()},
    }
    folder.write_json("evaluation.json", summary)
    with counting("writing the report", 1) as on_progress:
        page = report_run(folder, experiment, state, test_sampler, result)
        on_progress(1)
    if options.json:
        print(json.dumps({**summary, "report": str(page)}))
    else:
        print(describe(result, experiment.test, "test", experiment.normalisation))
        print(f"run: {folder.path}   report: {page}")
    return 0 if result.failed < options.tasks else 1
