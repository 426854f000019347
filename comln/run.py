"""A run and its self-describing folder: configuration, metrics, checkpoints, evaluation, report."""

__all__ = ["Run", "RunError", "RunFolder", "load_run"]

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cattrs
import jax
from cattrs.strategies import configure_tagged_union

from comln.checkpoint import Checkpoints
from comln.meta_train import TrainState, start_training
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes.backbones import BackboneConfig, Conv4Config
from comln.recipes.experiment import Experiment
from comln.recipes.learners import LearnerConfig

# Tuples become lists, as in JSON: what was written down equals what it was written from.
converter = cattrs.Converter(forbid_extra_keys=True, unstruct_collection_overrides={tuple: list})
configure_tagged_union(Adam | SGD | StepwiseAdam, converter, tag_name="kind")
configure_tagged_union(LearnerConfig, converter, tag_name="kind")
# A run from before there were several networks has one without a name.
configure_tagged_union(BackboneConfig, converter, tag_name="kind", default=Conv4Config)


class RunError(ValueError):
    """A folder does not hold the run that it should; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A run as it can be restored: what was asked for, and where training stands.

    - `experiment`, `seed`: what was asked for.
    - `state`: the newest saved state.
    - `splits_hash`: content hash of the data it was trained on.
    """

    experiment: Experiment
    seed: int
    state: TrainState
    splits_hash: str


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")

    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "config.json").exists()

    def start(
        self, experiment: Experiment, learner: str, protocol: str, seed: int, splits_hash: str, command: str
    ) -> None:
        """Write the configuration, resolved, with the command and the versions that it ran on."""
        names = ("comln", "jax", "jaxlib", "equinox", "diffrax", "optax", "numpy", "matplotlib", "pillow")
        configuration = {
            "experiment": converter.unstructure(experiment),
            "learner": learner,
            "protocol": protocol,
            "seed": seed,
            "data_hash": splits_hash,
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
            raise RunError(
                f"{self.path} holds no run (no config.json). Pass the folder that `comln train` wrote."
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged ({error}). Train again with another --out.") from error

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

    def write_json(self, name: str, content: Any) -> None:
        """Write one JSON file, whole or not at all."""
        temporary = self.path / f".{name}.part"
        temporary.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(temporary, self.path / name)

    def metrics(self) -> Iterator[dict[str, float | int]]:
        """Yield the metrics, one dictionary an update; a half-written last line is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    def keep_metrics_until(self, step: int) -> None:
        """Drop the metrics of updates after `step`, which are about to be made again."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        temporary = self.path / ".metrics.jsonl.part"
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, self.path / "metrics.jsonl")


def load_run(path: str | Path) -> Run:
    """Return the run in a folder, with its newest readable checkpoint.

    **Raises:** `RunError` where the folder holds no run or no checkpoint; `CheckpointError` where none can be read.
    """
    folder = RunFolder(Path(path))
    experiment, configuration = folder.experiment(), folder.configuration()
    learner = experiment.build(configuration["seed"])
    state = start_training(learner, experiment.optimiser.build(learner, experiment.steps))
    restored = folder.checkpoints.restore_newest(state)
    if restored is None:
        raise RunError(f"{path} holds no checkpoint yet. Go on training with `comln train ... --out {path} --resume`.")
    return Run(experiment, configuration["seed"], restored[0], configuration["data_hash"])
