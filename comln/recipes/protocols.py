"""How each method is trained: by one recipe for all, as its authors train it, or by that of the paper."""

__all__ = ["LEARNERS", "PROTOCOLS", "apply", "paper_of"]

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comln.backbones import Normalisation
from comln.data.prepared import PreparedData
from comln.data.sampling import EpisodeShape
from comln.learners import ConjugateGradients
from comln.optimiser import SGD
from comln.recipes.backbones import Conv4Config, IdentityConfig, ResNet12Config
from comln.recipes.experiment import Experiment
from comln.recipes.learners import (
    ANILConfig,
    CAVIAConfig,
    COMLNConfig,
    IMAMLConfig,
    LeapConfig,
    LearnerConfig,
    LEOConfig,
    LRD2Config,
    MAMLConfig,
    MetaOptNetRidgeConfig,
    MetaOptNetSVMConfig,
    MetaSGDConfig,
    ProtoNetConfig,
    R2D2Config,
)
from comln.recipes.originals import Original, original_of

PROTOCOLS = ("house", "original", "paper")
"""Ways to set a method's hyperparameters: one recipe for all, each method's own, that of the paper."""


@dataclass(frozen=True)
class House:
    """What differs between methods in the house protocol; the rest is that of the recipe.

    - `learner`: the method.
    - `scale_output`: whether embeddings are divided by the root of their size.
    - `normalisation`: batch statistics at evaluation.
    - `learning_rate`, `tasks_per_step`: where they are others than the recipe's. Methods that adapt a whole network
      learn most in a given time from many small updates.
    """

    learner: LearnerConfig
    scale_output: bool = False
    normalisation: Normalisation = Normalisation.RUNNING
    learning_rate: float | None = None
    tasks_per_step: int | None = None


HOUSE: Mapping[str, House] = {
    "comln": House(COMLNConfig(), scale_output=True),
    "maml": House(MAMLConfig(), normalisation=Normalisation.BATCH, learning_rate=1e-2, tasks_per_step=4),
    "anil": House(ANILConfig(), scale_output=True),
    "meta-sgd": House(MetaSGDConfig(), normalisation=Normalisation.BATCH, learning_rate=1e-2, tasks_per_step=4),
    "cavia": House(CAVIAConfig(), normalisation=Normalisation.BATCH, learning_rate=1e-2, tasks_per_step=4),
    "imaml": House(
        IMAMLConfig(solver=ConjugateGradients(iterations=2)),
        normalisation=Normalisation.BATCH,
        learning_rate=1e-2,
        tasks_per_step=4,
    ),
    "metaoptnet-rr": House(MetaOptNetRidgeConfig()),
    "metaoptnet-svm": House(MetaOptNetSVMConfig()),
    "r2d2": House(R2D2Config()),
    "lrd2": House(LRD2Config()),
    "leap": House(LeapConfig(), normalisation=Normalisation.BATCH),
    "leo": House(LEOConfig(), scale_output=True),
    "protonet": House(ProtoNetConfig()),
}

LEARNERS = tuple(HOUSE)
"""The methods that can be trained, by name."""


VALIDATE_EVERY, VALIDATION_TASKS = 1000, 2000
"""Of Lee et al. (2019): after each of their 60 epochs, on 2000 tasks."""
PAPER_STEPS = {"maml": MAMLConfig(0.01, 10, 10), "anil": ANILConfig(0.01, 10, 10)}
"""What the paper states of the inner steps of the methods that it runs itself."""


def paper_of(learner: str, experiment: Experiment) -> dict[str, Any]:
    """Return the fields of an experiment that COMLN's authors set: E.5, and what their program adds to it.

    All methods have SGD at 0.1, on the horizon too, 60,000 updates of 8 tasks, 64 filters, as many shots in training
    as at test, and no dropout, DropBlock or smoothed labels. What the paper does not state of a method is as its
    authors have it.
    """
    original = original_of(learner, experiment)
    backbone, config = original.backbone, PAPER_STEPS.get(learner, original.learner)
    if isinstance(backbone, Conv4Config):
        backbone = dataclasses.replace(backbone, filters=64)
    if isinstance(experiment.backbone, ResNet12Config):
        backbone = dataclasses.replace(experiment.backbone, scale_output=backbone.scale_output)
    if isinstance(config, MetaOptNetRidgeConfig | MetaOptNetSVMConfig):
        config = dataclasses.replace(config, query_smoothing=0.0)
    return {
        "learner": config,
        "optimiser": SGD(),
        "backbone": backbone,
        "steps": 60_000,
        "tasks_per_step": 8,
        "train": EpisodeShape(experiment.test.ways, experiment.test.shots, 15),
        "normalisation": original.normalisation,
    }


def apply(experiment: Experiment, learner: str, protocol: str) -> Experiment:
    """Return the experiment with this learner, trained by this protocol, on the experiment's data and network."""
    match protocol:
        case "original":
            return _as_original(experiment, original_of(learner, experiment))
        case "paper":
            return dataclasses.replace(experiment, **paper_of(learner, experiment), **_selected(experiment, patience=0))
        case _:
            return _as_house(experiment, HOUSE[learner])


def _selected(experiment: Experiment, patience: int) -> dict[str, int]:
    """Return how a long run selects its state, as Lee et al. do: by 2000 tasks after every 1000 updates.

    They train to the end; where a method's authors stop, `patience` counts such validations. A recipe without
    validation stays without.
    """
    if not experiment.validate_every:
        return {}
    return {"validate_every": VALIDATE_EVERY, "validation_tasks": VALIDATION_TASKS, "patience": patience}


def _as_original(experiment: Experiment, original: Original) -> Experiment:
    data = experiment.data
    if isinstance(data, PreparedData) and not original.varies_images:
        data = dataclasses.replace(data, padding=None)
    return dataclasses.replace(
        experiment,
        data=data,
        learner=original.learner,
        optimiser=original.optimiser,
        backbone=original.backbone,
        steps=original.steps,
        tasks_per_step=original.tasks_per_step,
        train=original.train,
        train_mixture=original.train_mixture,
        normalisation=original.normalisation,
        **_selected(experiment, original.patience),
    )


def _as_house(experiment: Experiment, house: House) -> Experiment:
    backbone, optimiser = experiment.backbone, experiment.optimiser
    if not isinstance(backbone, IdentityConfig):
        backbone = dataclasses.replace(backbone, scale_output=house.scale_output)
    if house.learning_rate is not None:
        optimiser = dataclasses.replace(optimiser, learning_rate=house.learning_rate)
    return dataclasses.replace(
        experiment,
        learner=house.learner,
        backbone=backbone,
        normalisation=house.normalisation,
        optimiser=optimiser,
        tasks_per_step=house.tasks_per_step or experiment.tasks_per_step,
    )
