"""A run and its self-describing folder: configuration, metrics, checkpoints, evaluation, report; or its one file."""

__all__ = ["Run", "RunError", "RunFolder", "export_run", "load_run"]

import dataclasses
import json
import logging
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cattrs
import jax
from cattrs.gen import make_dict_unstructure_fn, override
from cattrs.strategies import configure_tagged_union

from comln.checkpoint import Checkpoints
from comln.data.input_form import InputForm
from comln.data.split_writer import write_whole
from comln.learners import AbstractLearner
from comln.meta_train import TrainState, start_training
from comln.metrics import read_lines
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes.backbones import BackboneConfig, Conv4Config
from comln.recipes.experiment import DataConfig, Experiment, GlyphsData
from comln.recipes.learners import COMLNConfig, LearnerConfig
from comln.selection import Selection
from comln.weights import read_metadata, read_weights, write_weights

logger = logging.getLogger("comln")
# Tuples become lists, as in JSON: what was written down equals what it was written from.
converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
# A run from before there was a choice of integrators has none written; nor has one that takes the usual one.
converter.register_unstructure_hook(
    COMLNConfig,
    make_dict_unstructure_fn(
        COMLNConfig,
        converter,
        integrator=override(omit_if_default=True),
        euler_step=override(omit_if_default=True),
    ),
)
configure_tagged_union(Adam | SGD | StepwiseAdam, converter, tag_name="kind")
configure_tagged_union(LearnerConfig, converter, tag_name="kind")
# A run from before there were several networks has one without a name.
configure_tagged_union(BackboneConfig, converter, tag_name="kind", default=Conv4Config)
configure_tagged_union(DataConfig, converter, tag_name="kind", default=GlyphsData)


NUMERIC = ("comln", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy")
"""What the numbers of a run depend on."""


class RunError(ValueError):
    """A folder does not hold the run that it should; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A trained run as it can be used: what was asked for, and what came of it.

    - `experiment`, `seed`: what was asked for.
    - `learner`, `statistics`: of the best state by validation, or of the newest where nothing was validated.
    - `step`: updates made until that state. `last_step`: updates made in all.
    - `selection`: what validations have shown.
    - `splits_hash`: content hash of the data it was trained on.
    - `inputs`: what the learner expects of an example; `None` for a run from before this was written down.
    """

    experiment: Experiment
    seed: int
    learner: AbstractLearner
    statistics: Any
    step: int
    last_step: int
    selection: Selection
    splits_hash: str
    inputs: InputForm | None = None


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")

    def holds_run(self) -> bool:
        """Whether a run was started here; its checkpoints say so, too, where its configuration is lost."""
        return (self.path / "config.json").exists() or bool(self.checkpoints.steps())

    def start(
        self,
        experiment: Experiment,
        learner: str,
        protocol: str,
        seed: int,
        splits_hash: str,
        command: str,
        inputs: InputForm | None = None,
    ) -> None:
        """Write the configuration, resolved, with the command and the versions that it ran on."""
        names = (*NUMERIC, "orbax-checkpoint", "matplotlib", "pillow")
        configuration = {
            "experiment": converter.unstructure(experiment),
            "learner": learner,
            "protocol": protocol,
            "seed": seed,
            "data_hash": splits_hash,
            "inputs": None if inputs is None else converter.unstructure(inputs),
            "command": command,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("config.json", configuration)

    def configuration(self) -> dict[str, Any]:
        """Return what `start` wrote."""
        path = self.path / "config.json"
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            if self.holds_run():
                raise RunError(
                    f"{self.path} holds checkpoints, but its config.json is lost. Put that back, or choose another "
                    "folder."
                ) from None
            raise RunError(
                f"{self.path} holds no run (no config.json). Pass the folder that `comln train` wrote."
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged ({error}). Train again with another --out.") from error

    def is_of(self, experiment: Experiment, seed: int) -> bool:
        """Whether the run here is of this experiment and seed, wherever its data lie: their hash says what they are."""
        before = self.configuration()
        asked = converter.unstructure(experiment)
        return (_without_place(before.get("experiment")), before.get("seed")) == (_without_place(asked), seed)

    def other_versions(self) -> str:
        """Return which of the libraries that a run's numbers depend on are not those it was started with."""
        before = self.configuration().get("versions", {})
        return ", ".join(
            f"{name} {before.get(name)}, now {version(name)}" for name in NUMERIC if before.get(name) != version(name)
        )

    def experiment(self) -> Experiment:
        """Return the experiment of this run."""
        configuration = self.configuration()
        try:
            return converter.structure(configuration["experiment"], Experiment)
        except Exception as error:
            raise RunError(
                f"{self.path / 'config.json'} does not describe an experiment of this version of comln "
                f"({version('comln')}; it was written by {configuration.get('versions', {}).get('comln', 'another')})."
            ) from error

    def inputs(self) -> InputForm | None:
        """Return what the learner expects of an example, if that was written down."""
        configuration = self.configuration()
        try:
            return _structure_inputs(configuration.get("inputs"))
        except Exception as error:
            raise RunError(
                f"{self.path / 'config.json'} is damaged (inputs). Train again with another --out."
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Write one JSON file, whole or not at all, and on the disk when this returns."""
        write_whole(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def metrics(self) -> Iterator[dict[str, float | int]]:
        """Yield the metrics of updates, one dictionary each, without the lines of validations."""
        return (line for line in read_lines(self.path) if "loss" in line)

    def save(self, state: TrainState, seed: int, selection: Selection) -> None:
        """Begin to write a checkpoint, from which training can go on."""
        metadata = {"seed": seed, "selection": dataclasses.asdict(selection)}
        self.checkpoints.save(int(state.step), state, metadata, best=selection.best_step)

    def restore_newest(self, template: TrainState) -> tuple[TrainState, Selection] | None:
        """Return the newest readable checkpoint, and what validations had shown by then, or `None` without any."""
        restored = self.checkpoints.restore_newest(template)
        return None if restored is None else (restored[0], Selection(**restored[1]["selection"]))

    def best(self, newest: TrainState, selection: Selection) -> TrainState:
        """Return the best state by validation; the newest, with a warning, where that cannot be read."""
        step = selection.best_step
        if step is None or step == int(newest.step):
            return newest
        restored = self.checkpoints.restore(step, newest)
        if restored is None:
            logger.warning("The best state, of step %d, is lost; the newest is used instead.", step)
            return newest
        return restored[0]


def load_run(path: str | Path) -> Run:
    """Return the run in a folder, with its best state by validation or its newest, or that in an exported file.

    **Raises:** `RunError` where there is no run or no checkpoint; `CheckpointError` or `WeightsError` where none can be
    read.
    """
    path = Path(path)
    if path.is_file():
        return _load_exported(path)
    folder = RunFolder(path)
    experiment, configuration = folder.experiment(), folder.configuration()
    learner = experiment.build(configuration["seed"])
    template = start_training(learner, experiment.optimiser.build(learner, experiment.steps))
    restored = folder.restore_newest(template)
    if restored is None:
        raise RunError(f"{path} holds no checkpoint yet. Go on training with `comln train ... --out {path} --resume`.")
    newest, selection = restored
    state = folder.best(newest, selection)
    return Run(
        experiment=experiment,
        seed=configuration["seed"],
        learner=state.learner,
        statistics=state.statistics,
        step=int(state.step),
        last_step=int(newest.step),
        selection=selection,
        splits_hash=configuration["data_hash"],
        inputs=folder.inputs(),
    )


def export_run(run: Run, path: Path) -> None:
    """Write what `load_run` returns into one safetensors file, without what only training needs.

    Where the data lay is left out: it means nothing on another machine.
    """
    about = {
        "experiment": _without_place(converter.unstructure(run.experiment)),
        "seed": run.seed,
        "step": run.step,
        "last_step": run.last_step,
        "selection": dataclasses.asdict(run.selection),
        "data_hash": run.splits_hash,
        "inputs": None if run.inputs is None else converter.unstructure(run.inputs),
        "comln": version("comln"),
    }
    write_weights(path, _weights(run.learner, run.statistics), {"run": json.dumps(about)})


def _load_exported(path: Path) -> Run:
    metadata = read_metadata(path)
    try:
        about = json.loads(metadata["run"])
        experiment = converter.structure(about["experiment"], Experiment)
        seed, step, last_step = (converter.structure(about[name], int) for name in ("seed", "step", "last_step"))
        selection = converter.structure(about["selection"], Selection)
        splits_hash = converter.structure(about["data_hash"], str)
        inputs = _structure_inputs(about.get("inputs"))
        learner = experiment.build(seed)
    except Exception as error:
        raise RunError(
            f"{path} does not describe a run of this version of comln ({version('comln')}). Pass what `comln export` "
            "wrote, or export it again."
        ) from error
    weights = read_weights(path, _weights(learner, learner.backbone.initial_statistics()))
    return Run(
        experiment=experiment,
        seed=seed,
        learner=weights["learner"],
        statistics=weights["statistics"],
        step=step,
        last_step=last_step,
        selection=selection,
        splits_hash=splits_hash,
        inputs=inputs,
    )


def _structure_inputs(written: Any) -> InputForm | None:
    return None if written is None else converter.structure(written, InputForm)


def _without_place(experiment: Any) -> Any:
    """Return a written experiment without the folder of its data.

    >>> _without_place({"data": {"name": "mine", "folder": "/here"}, "steps": 3})
    {'data': {'name': 'mine'}, 'steps': 3}
    """
    if not isinstance(experiment, dict) or not isinstance(experiment.get("data"), dict):
        return experiment
    return {**experiment, "data": {name: value for name, value in experiment["data"].items() if name != "folder"}}


def _weights(learner: AbstractLearner, statistics: Any) -> dict[str, Any]:
    return {"learner": learner, "statistics": statistics}
