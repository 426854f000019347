"""`comln train`: meta-train a learner, evaluate it on unseen classes, write the report."""

__all__ = ["run", "runaway_note"]

import dataclasses
import itertools
import json
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import jax
import tyro
from jax.sharding import Mesh

from comln import hosts
from comln.checkpoint import CheckpointError
from comln.cli.evaluate import describe
from comln.cli.options import fail, parse, quiet_jax
from comln.cli.progress import TrainingProgress, counting
from comln.cli.report import report_run
from comln.cli.stopping import Stopping
from comln.data.residence import Residence
from comln.data.sampling import Sampler
from comln.data.source import Split, content_hash, split_of
from comln.devices import check_divides, is_out_of_memory, task_mesh
from comln.evaluate import evaluate
from comln.meta_train import Divergence, TrainState, start_training
from comln.metrics import keep_until
from comln.recipes import NAMES, find
from comln.recipes.experiment import Experiment
from comln.recipes.learners import COMLNConfig
from comln.run import RunError, RunFolder
from comln.selection import Selection
from comln.training import Trained, train_run

TEST_SEED = 0
TOO_LITTLE_MEMORY = (
    "the device has too little memory for this run. Lower --tasks-per-step or --train.queries, spread the tasks over "
    "more --devices, or keep the images off it with --examples-on host."
)
RUNAWAY = 1000.0
"""A horizon that changed by more than this factor was not learned."""


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
    devices: int = 1
    """devices of each process, over which the tasks of a step are spread"""
    examples_on: Residence = Residence.AUTO
    """where training examples are kept, as bytes: on each device, or on the host, which then gathers those of each step
    (auto: on an accelerator of which they take at most a quarter of the memory)"""
    coordinator: str | None = None
    """HOST:PORT of the first process, where several train one run together"""
    processes: int = 1
    """how many processes there are"""
    process: int = 0
    """which of them this is, from 0; the first writes the files"""
    json: bool = False
    """print the result as JSON only"""


def run(arguments: list[str]) -> int:
    """Train, evaluate, report; return the exit code."""
    quiet_jax()
    with Stopping() as stopping:
        try:
            return _run(arguments, stopping)
        except BaseException as error:
            if hosts.is_joined():
                _leave_alone(error)
            if not is_out_of_memory(error):
                raise
            return fail(TOO_LITTLE_MEMORY, code=1)


def _leave_alone(error: BaseException) -> NoReturn:
    """End a process that fails on its own, at once, so that the others notice and end as well."""
    if is_out_of_memory(error):
        fail(TOO_LITTLE_MEMORY)
    elif hosts.lost_the_others(error):
        fail(
            "this process lost the others of its run. Start all of them again, with --resume, from the last checkpoint."
        )
    elif isinstance(error, KeyboardInterrupt):
        fail("interrupted. Start all processes again, with --resume, from the last checkpoint.")
        hosts.leave_at_once(130)
    else:
        traceback.print_exception(error)
    hosts.leave_at_once(1)


def _run(arguments: list[str], stopping: Stopping) -> int:
    began = time.monotonic()
    try:
        options = _options(arguments)
        _check(options)
        mesh = _devices(options)
        folder = RunFolder(options.out or Path("runs") / f"{options.recipe}-{options.learner}-{options.seed}")
        splits, samplers = _load_together(options)
        command = shlex.join(["comln", "train", *arguments])
        begin = _start_together(options, folder, content_hash(splits), command)
    except (ValueError, RunError, CheckpointError, OSError, hosts.FailedElsewhere) as error:
        if hosts.lost_the_others(error) or is_out_of_memory(error):
            raise
        return fail(error)
    trained = begin
    try:
        trained = _train(options, folder, samplers, begin, stopping, mesh)
        if options.coordinator is not None:
            # The others need not wait for the evaluation.
            jax.distributed.shutdown()
        if not hosts.is_first():
            return 0
        if trained.unfinished:
            return _stopped(folder, int(trained.state.step), options.experiment.steps)
        return _finish(options, folder, samplers.test, trained, time.monotonic() - began)
    except Divergence as error:
        return fail(_explain(error, folder), code=1)
    except (CheckpointError, hosts.FailedElsewhere) as error:
        return fail(error, code=1)
    except OSError as error:
        return fail(
            f"{folder.path} cannot be written ({error.strerror or error}). Free space and add --resume.", code=1
        )
    except KeyboardInterrupt:
        if hosts.is_joined():
            raise
        if trained is not begin or not begin.unfinished:
            fail("interrupted. Training is done and saved; the same command with --resume evaluates it.")
            return 0
        newest = folder.checkpoints.steps()[-1:] or [0]
        return fail(f"interrupted. Add --resume to the same command to go on from step {newest[0]}.", code=130)


@dataclass(frozen=True)
class Samplers:
    """What draws the tasks for training, for validation if there is any, and for the final evaluation."""

    train: Sequence[Sampler]
    validation: Sampler | None
    test: Sampler

    @classmethod
    def of(cls, experiment: Experiment, splits: Mapping[str, Split]) -> "Samplers":
        """Return those of an experiment.

        **Raises:** `ValueError` where the data set lacks one of the splits.
        """
        if experiment.validate_every and "val" not in splits:
            raise ValueError("This data set has no split for validation. Add --validate-every 0 --patience 0.")
        train = split_of(splits, "train")
        return cls(
            [Sampler(train, shape) for shape in experiment.train_shapes()],
            Sampler(splits["val"], experiment.test) if experiment.validate_every else None,
            Sampler(split_of(splits, "test"), experiment.test),
        )


def _devices(options: TrainOptions) -> Mesh | None:
    """Join the other processes, if there are any, and return the devices to use if there are several."""
    if options.coordinator is None:
        if options.processes != 1 or options.process != 0:
            raise ValueError("--processes and --process need --coordinator HOST:PORT, the address of the first one.")
        if options.devices == 1:
            return None
    else:
        hosts.join(hosts.Hosts(options.coordinator, options.processes, options.process))
    mesh = task_mesh(options.devices)
    check_divides(options.experiment.tasks_per_step, mesh.size)
    return mesh


def _load_together(options: TrainOptions) -> tuple[dict[str, Split], "Samplers"]:
    """Return the data and what draws from them, once each process has them; where one has not, all say so and end."""
    loaded, error = None, None
    try:
        splits = options.experiment.data.load()
        loaded = splits, Samplers.of(options.experiment, splits)
        # A method that cannot do the test tasks says so before it is trained.
        options.experiment.build(options.seed).ways_note(options.experiment.test.ways)
    except (ValueError, OSError) as problem:
        error = problem
    if hosts.any_of(error is not None) or loaded is None:
        raise error or hosts.FailedElsewhere()
    return loaded


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


def _check(options: TrainOptions) -> None:
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be at least 0 and below 2^32, got {options.seed}.")
    if options.tasks < 2:
        raise ValueError(f"--tasks must be at least 2, got {options.tasks}.")
    if options.checkpoint_every is not None and options.checkpoint_every < 1:
        raise ValueError(f"--checkpoint-every must be at least 1 step, got {options.checkpoint_every}.")
    if options.experiment.steps < 1 or options.experiment.tasks_per_step < 1:
        raise ValueError("--steps and --tasks-per-step must be at least 1.")


def _check_folder(options: TrainOptions, folder: RunFolder) -> None:
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"{folder.path} is a file. Choose a folder with --out.")
    if folder.holds_run():
        folder.configuration()  # one that is lost or damaged is the first thing to know
    if folder.holds_run() and not options.resume:
        raise ValueError(f"{folder.path} already holds a run. Add --resume to go on with it, or choose another --out.")
    if folder.holds_run() and not folder.is_of(options.experiment, options.seed):
        raise ValueError(
            f"{folder.path} holds a run of another configuration or seed. Resume it with the command that started it, "
            "or choose another --out."
        )


def _start_together(options: TrainOptions, folder: RunFolder, data_hash: str, command: str) -> Trained:
    """Return where to go on from, which the first process finds out for all of them."""
    learner = options.experiment.build(options.seed)
    state = start_training(learner, options.experiment.optimiser.build(learner, options.experiment.steps))
    selection, error = Selection(), ""
    if hosts.is_first():
        try:
            _check_folder(options, folder)
            state, selection = _start(options, folder, state, data_hash, command)
        except (ValueError, CheckpointError, OSError) as problem:
            error = str(problem)
    told = json.loads(hosts.text_from_first(json.dumps([error, dataclasses.asdict(selection)])))
    if told[0]:
        raise RunError(told[0])
    selection = Selection(**told[1])
    state = hosts.from_first(state)
    more = int(state.step) < options.experiment.steps and not selection.is_exhausted(options.experiment.patience)
    return Trained(state, selection, more)


def _start(
    options: TrainOptions, folder: RunFolder, state: TrainState, data_hash: str, command: str
) -> tuple[TrainState, Selection]:
    """Return the newest checkpoint, or `state` where there is none; the first start writes the configuration."""
    if not folder.holds_run():
        if options.resume:
            print(f"comln: no run in {folder.path} yet; starting from the beginning.", file=sys.stderr)
        inputs = options.experiment.data.input_form()
        folder.start(options.experiment, options.learner, options.protocol, options.seed, data_hash, command, inputs)
        return state, Selection()
    if folder.configuration()["data_hash"] != data_hash:
        raise ValueError(
            f"The data set is not the one that {folder.path} was trained on (other fonts or library versions). "
            "Resume where it was started, or choose another --out."
        )
    if others := folder.other_versions():
        print(f"comln: started with {others}: the end may differ in its last digits.", file=sys.stderr)
    restored = folder.restore_newest(state)
    if restored is None:
        print(f"comln: no checkpoint in {folder.path} yet; starting from the beginning.", file=sys.stderr)
        keep_until(folder.path, 0)
        return state, Selection()
    keep_until(folder.path, int(restored[0].step))
    return restored


def _train(
    options: TrainOptions,
    folder: RunFolder,
    samplers: Samplers,
    begin: Trained,
    stopping: Stopping,
    mesh: Mesh | None,
) -> Trained:
    first = hosts.is_first()
    with ExitStack() as stack:
        progress = None
        if first and begin.unfinished:
            progress = stack.enter_context(TrainingProgress(options.experiment.steps, int(begin.state.step)))
        stopping.gently = True
        stack.callback(setattr, stopping, "gently", False)
        return train_run(
            options.experiment,
            options.seed,
            begin,
            samplers.train,
            samplers.validation,
            folder if first else None,
            checkpoint_every=options.checkpoint_every,
            on_step=(lambda report: None) if progress is None else progress.show,
            should_stop=lambda: stopping.requested,
            mesh=mesh,
            examples_on=options.examples_on,
        )


def _stopped(folder: RunFolder, step: int, steps: int) -> int:
    print(
        f"comln: stopped and saved at step {step} of {steps} in {folder.path}. Add --resume to the same command to go "
        "on.",
        file=sys.stderr,
    )
    return 0


def _explain(error: Divergence, folder: RunFolder) -> str:
    steps = folder.checkpoints.steps()
    saved = f"The last good checkpoint is of step {steps[-1]}" if steps else "No checkpoint was written yet"
    return f"{error} {saved}, in {folder.path}. Choose another --out with, for example, --optimiser.learning-rate 1e-3."


def runaway_note(experiment: Experiment, scalars: Mapping[str, Any]) -> str:
    """Return what to say where a learned horizon has left all bounds, or nothing."""
    if not isinstance(experiment.learner, COMLNConfig):
        return ""
    before, after = experiment.learner.initial_horizon, scalars["horizon"]
    if before / RUNAWAY < after < before * RUNAWAY:
        return ""
    return (
        f"the horizon ran away: T went from {before:.3g} to {after:.3g}, so its steps were too long. Lower "
        "--optimiser.horizon-learning-rate in the house protocol; the others have no steps of its own for it."
    )


def _finish(
    options: TrainOptions, folder: RunFolder, test_sampler: Sampler, trained: Trained, training_s: float
) -> int:
    experiment, selection = options.experiment, trained.selection
    state = folder.best(trained.state, selection)
    selected_by = "last step" if selection.best_step != int(state.step) else "validation accuracy"
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
        "step": int(state.step),
        "last_step": int(trained.state.step),
        "selected_by": selected_by,
        "validation_accuracy": selection.best_accuracy,
        "training_s": round(training_s, 1),
        **{name: float(value) for name, value in state.learner.scalars().items()},
    }
    folder.write_json("evaluation.json", summary)
    if note := runaway_note(experiment, summary):
        print(f"comln: {note}", file=sys.stderr)
    with counting("writing the report", 1) as on_progress:
        page = report_run(folder, experiment, state, test_sampler, result)
        on_progress(1)
    if options.json:
        print(json.dumps({**summary, "report": str(page)}))
    else:
        if selection.best_accuracy is not None:
            print(
                f"state of step {int(state.step)} of {int(trained.state.step)}, by {selected_by} (best validation "
                f"accuracy {100 * selection.best_accuracy:.2f} %)"
            )
        print(describe(result, experiment.test, "test", experiment.normalisation))
        print(f"run: {folder.path}   report: {page}")
    return 0 if result.failed < options.tasks else 1
