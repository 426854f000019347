"""Train a run so that nothing is lost: checkpoints, validation with selection of the best state, early stopping."""

__all__ = ["Trained", "train_run"]

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from jax.sharding import Mesh

from comln import hosts
from comln.checkpoint import CheckpointError
from comln.data.residence import Residence
from comln.data.sampling import Sampler
from comln.devices import to_this_process
from comln.evaluate import Evaluation, evaluate
from comln.meta_train import StepReport, TrainState, meta_train
from comln.metrics import MetricsLog
from comln.recipes.experiment import Experiment
from comln.run import RunFolder
from comln.selection import Selection

SECONDS_BETWEEN_CHECKPOINTS = 20.0
VALIDATION_SEED = 0
GO_ON, STOP, FAILED = range(3)
"""What processes tell each other after each update; the largest counts."""


@dataclass(frozen=True)
class Trained:
    """Where a run stands: its newest state, what validations have shown, and whether there is more to train."""

    state: TrainState
    selection: Selection
    unfinished: bool


def train_run(
    experiment: Experiment,
    seed: int,
    begin: Trained,
    samplers: Sequence[Sampler],
    validation: Sampler | None,
    folder: RunFolder | None,
    *,
    checkpoint_every: int | None = None,
    on_step: Callable[[StepReport], None] = lambda report: None,
    should_stop: Callable[[], bool] = lambda: False,
    mesh: Mesh | None = None,
    examples_on: Residence = Residence.AUTO,
) -> Trained:
    """Train from where a run stands to its end, or until it is to stop; return where it stands then.

    - `validation`: draws validation tasks; `None` where the experiment has none.
    - `folder`: where checkpoints and metrics go; `None` in all processes but the first.
    - `checkpoint_every`: updates between checkpoints; `None` for about 20 seconds of work. States that are the best so
      far, and the last one, are saved too.
    - `should_stop`: asked after each update; in any process, it ends the run in all of them.
    - `mesh`, `examples_on`: as `meta_train` has them.

    **Raises:** `Divergence` as `meta_train` does; `CheckpointError` or `OSError` where the folder cannot be written,
    after that step is done, and `hosts.FailedElsewhere` in the other processes at the same time.
    """
    selection, saved, stopping = begin.selection, time.monotonic(), False
    log: MetricsLog | None = None
    failure: Exception | None = None

    @contextmanager
    def writing() -> Iterator[None]:
        """Keep what goes wrong until all processes can hear of it: one that left now would leave the others waiting."""
        nonlocal failure
        try:
            yield
        except (CheckpointError, OSError) as error:
            failure = failure or error

    def agree(stop: bool) -> bool:
        """Return whether any process is to stop, or raise in all of them what went wrong in one."""
        agreed = hosts.largest_of(FAILED if failure is not None else STOP if stop else GO_ON)
        if agreed == FAILED:
            raise failure or hosts.FailedElsewhere()
        return agreed == STOP

    def on_state(state: TrainState) -> bool:
        nonlocal selection, saved
        step = int(state.step)
        last = step == experiment.steps
        if validation is not None and (last or step % experiment.validate_every == 0):
            result = _validate(experiment, state, validation)
            accuracy = float(hosts.text_from_first(repr(result.mean)))
            selection = selection.after(step, accuracy)
            if log is not None:
                with writing():
                    log.write(step, {"validation_accuracy": accuracy, "validation_ci95": result.ci95})
        ended = selection.is_exhausted(experiment.patience)
        if checkpoint_every is None:
            due = time.monotonic() - saved >= SECONDS_BETWEEN_CHECKPOINTS
        else:
            due = step % checkpoint_every == 0
        if folder is not None and (due or last or ended or stopping or selection.best_step == step):
            with writing():
                folder.save(state, seed, selection)
            saved = time.monotonic()
        return ended

    def stop_everywhere() -> bool:
        nonlocal stopping
        stopping = agree(should_stop())
        return stopping

    def log_step(report: StepReport) -> None:
        if log is not None:
            with writing():
                log.write(report.step, {**report.values, "tasks_per_second": report.tasks_per_second})
        on_step(report)

    if not begin.unfinished:
        return begin
    with ExitStack() as stack:
        if folder is not None:
            with writing():
                log = stack.enter_context(MetricsLog(folder.path, int(begin.state.step)))
            # A run that breaks off, too, leaves its last checkpoint whole.
            stack.callback(folder.checkpoints.finish)
        state = meta_train(
            begin.state,
            experiment.optimiser.build(begin.state.learner, experiment.steps),
            samplers,
            steps=experiment.steps,
            tasks_per_step=experiment.tasks_per_step,
            seed=seed,
            on_step=log_step,
            on_state=on_state,
            should_stop=stop_everywhere,
            mesh=mesh,
            examples_on=examples_on,
        )
        if folder is not None:
            with writing():
                folder.checkpoints.finish()
        agree(stop=False)
    more = int(state.step) < experiment.steps and not selection.is_exhausted(experiment.patience)
    return Trained(to_this_process(state), selection, more)


def _validate(experiment: Experiment, state: TrainState, sampler: Sampler) -> Evaluation:
    """Evaluate on the validation tasks. Each process does it by itself, so that none waits for another."""
    here = to_this_process(state)
    learner = experiment.at_test(here.learner)
    return evaluate(
        learner, here.statistics, sampler, experiment.validation_tasks, VALIDATION_SEED, experiment.normalisation
    )
