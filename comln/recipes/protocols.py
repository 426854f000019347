"""How each method is trained: by one recipe for all, by its authors' own, or by that of the paper."""

__all__ = ["LEARNERS", "PROTOCOLS", "Original", "apply", "original_of", "paper_of"]

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comln.backbones import Normalisation
from comln.data.sampling import EpisodeShape
from comln.learners import ConjugateGradients, ProximalPull
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes.backbones import Conv4Config
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

OTHER_NETWORK = (
    "the house network's biases, initialisation and normalisation; glyphs are jittered in training, where the authors "
    "vary nothing"
)
"""What holds for every method whose authors use the four-block network without augmentation."""

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


@dataclass(frozen=True)
class Original:
    """A method as its authors train it, and how sure that is.

    - `learner`, `optimiser`, `backbone`, `steps`, `tasks_per_step`: as in an experiment.
    - `train`: shape of the training tasks. `train_mixture`: of which each update takes one, where there are several.
    - `normalisation`: batch statistics at evaluation.
    - `from_paper`, `from_code`: settings that were read in the method's paper, or in its authors' program.
    - `from_memory`: settings that are remembered, and could not be verified.
    - `chosen`: settings that are stated nowhere, or cannot be had here, and what was chosen.
    """

    learner: LearnerConfig
    optimiser: Adam | SGD | StepwiseAdam
    backbone: Conv4Config
    steps: int
    tasks_per_step: int
    train: EpisodeShape
    normalisation: Normalisation
    train_mixture: tuple[EpisodeShape, ...] = ()
    from_paper: str = ""
    from_code: str = ""
    from_memory: str = ""
    chosen: str = ""


CONSTANT_RATE = SGD(falls=(1.0, 1.0, 1.0), momentum=0.0, weight_decay=0.0)


def original_of(learner: str, test: EpisodeShape) -> Original:
    """Return how the authors of a method train it for test tasks of this shape."""
    ways, shots = test.ways, test.shots
    few = 4 if shots == 1 else 2
    same = EpisodeShape(ways, shots, 15)
    match learner:
        case "comln":
            return Original(
                COMLNConfig(initial_horizon=1.0),
                SGD(),
                Conv4Config(64),
                60_000,
                8,
                same,
                Normalisation.RUNNING,
                from_paper="SGD with Nesterov momentum, its rate and schedule; 64 filters; proximal weight 0",
                from_code="T starts at 1; 15 queries; no weight decay on T",
                chosen="8 tasks; 60,000 updates; running batch statistics; embeddings divided by the root of their "
                "size",
            )
        case "maml":
            return Original(
                MAMLConfig(step=0.01 * ways, steps=5, test_steps=10),
                StepwiseAdam(1e-3, clip_numbers=10.0),
                Conv4Config(32, scale_output=False),
                60_000,
                4,
                same,
                Normalisation.BATCH,
                from_code="inner step, steps, updates, tasks, queries in training, filters, optimiser, clipping; "
                "their loss is the mean loss times the ways, so the step is 0.01 ways",
                chosen=f"{OTHER_NETWORK}; test tasks keep their queries, where the authors take as many queries as "
                f"shots",
            )
        case "anil":
            return Original(
                ANILConfig(step=0.01 * ways, steps=5, test_steps=10),
                StepwiseAdam(1e-3),
                Conv4Config(32, scale_output=False),
                30_000,
                4,
                same,
                Normalisation.BATCH,
                from_memory="all; the step is 0.01 ways, as for MAML",
                chosen=f"{OTHER_NETWORK}; in training all tasks of an update share the batch statistics, in "
                f"evaluation each task has its own",
            )
        case "meta-sgd":
            return Original(
                MetaSGDConfig(initial_step=0.01 * ways, steps=1, test_steps=1),
                StepwiseAdam(1e-3),
                Conv4Config(32, scale_output=False),
                60_000,
                few,
                same,
                Normalisation.BATCH,
                from_memory="all but the following; step sizes are drawn from 0.005 to 0.1",
                chosen=f"{OTHER_NETWORK}; step sizes start at 0.01 ways, inside that range where the loss is MAML's",
            )
        case "cavia":
            return Original(
                CAVIAConfig(context_size=100, step=1.0, steps=2, test_steps=2),
                StepwiseAdam(1e-3, decay=0.9, clip_numbers=10.0),
                Conv4Config(32, scale_output=False),
                60_000,
                few,
                same,
                Normalisation.BATCH,
                from_code="network, context, steps, updates, tasks, queries, optimiser, clipping",
                from_memory="the best published number is of 512 filters (--backbone.filters 512)",
                chosen="glyphs are jittered in training, where the authors vary nothing",
            )
        case "imaml":
            return Original(
                IMAMLConfig(
                    0.1,
                    10,
                    10,
                    0.5,
                    ConjugateGradients(iterations=5, damping=1.0, shift=10.0),
                    ProximalPull.ONCE_AT_THE_END,
                    ProximalPull.NOWHERE,
                ),
                StepwiseAdam(1e-3, epsilon=1e-3),
                Conv4Config(32, scale_output=False),
                20_000,
                16,
                same,
                Normalisation.BATCH,
                from_code="the linear system with damping 1 and shift 10; 5 iterations; the pull in one last step, and "
                "nowhere in evaluation; Adam with epsilon 1e-3; 20,000 updates, on Omniglot",
                chosen="proximal weight 0.5, 10 steps of 0.1, 16 tasks, 15 queries and 32 filters, from a "
                f"reproduction by others; {OTHER_NETWORK}",
            )
        case "metaoptnet-rr" | "metaoptnet-svm":
            ridge = learner == "metaoptnet-rr"
            return Original(
                MetaOptNetRidgeConfig(50.0) if ridge else MetaOptNetSVMConfig(0.1, iterations=15, test_iterations=3),
                SGD(),
                Conv4Config(64, scale_output=False),
                60_000,
                8,
                EpisodeShape(ways, max(shots, 5), 6),
                Normalisation.RUNNING,
                from_code="head, solver iterations, updates, tasks, queries in training, filters, optimiser, schedule",
                chosen="5 training shots, of the 5 to 15 that the authors use for different data; support and query "
                "are normalised together, where the authors make a pass for each; glyphs are jittered, where the "
                "authors crop, colour and flip",
            )
        case "r2d2" | "lrd2":
            ridge = learner == "r2d2"
            train_ways, images = (16, 15) if ridge else (10, 20)
            mixture = tuple(EpisodeShape(train_ways, k, images - k) for k in range(1, 10))
            return Original(
                R2D2Config(50.0, initial_scale=1e-4) if ridge else LRD2Config(50.0, iterations=5),
                StepwiseAdam(5e-3, decay=0.5, decay_every=2000),
                Conv4Config(64, scale_output=False),
                120_000,
                1,
                mixture[0],
                Normalisation.RUNNING,
                mixture,
                from_code="head, ways, shots, examples of an update, optimiser, schedule",
                chosen="the house network with 64 filters, ReLU and no dropout, instead of theirs with 96 to 512, "
                "leaky ReLU, dropout and two joined blocks; all updates are made, where the authors stop early; "
                f"glyphs are jittered, where they vary nothing{'' if ridge else '; 5 Newton steps, of their 1 or 5'}",
            )
        case "leap":
            return Original(
                LeapConfig(step=0.1, steps=100, test_steps=100),
                CONSTANT_RATE,
                Conv4Config(64, scale_output=False),
                1000,
                20,
                same,
                Normalisation.BATCH,
                from_code="step, steps, updates, tasks and optimiser, for tasks of many examples",
                chosen="the steps see the whole support; statistics of the batch in evaluation too, where the authors "
                f"use running averages; {OTHER_NETWORK}",
            )
        case "leo":
            return Original(
                LEOConfig(
                    latent_size=64,
                    latent_step=1.0,
                    weight_step=1e-3,
                    steps_in_latents=5,
                    steps_in_weights=5,
                    dropout=0.308 if shots == 1 else 0.300,
                    kl_weight=0.756 if shots == 1 else 0.466,
                    encoder_penalty=5.76e-6 if shots == 1 else 2.66e-7,
                    l2_penalty=3.62e-10 if shots == 1 else 8.54e-9,
                    orthogonality_penalty=0.188 if shots == 1 else 1.52e-3,
                ),
                StepwiseAdam(2.739e-4 if shots == 1 else 4.102e-4, clip_numbers=0.1, clip_arrays=0.1),
                Conv4Config(64),
                100_000,
                12,
                same,
                Normalisation.RUNNING,
                from_code="code, steps, penalties, dropout, tasks, updates, optimiser and clipping, as tuned for "
                "embeddings of miniImageNet at 1 and at 5 shots",
                chosen="the network is trained along, where the authors' embeddings are fixed and of norm one",
            )
        case "protonet":
            return Original(
                ProtoNetConfig(),
                StepwiseAdam(1e-3, decay=0.5, decay_every=2000),
                Conv4Config(64, scale_output=False),
                20_000,
                1,
                EpisodeShape(max(ways, 20), shots, 15),
                Normalisation.RUNNING,
                from_memory="all",
                chosen="glyphs are jittered in training",
            )
        case _:
            raise ValueError(f"Nobody's own settings of {learner!r} are known. Use --protocol house.")


PAPER_STEPS = {"maml": MAMLConfig(0.01, 10, 10), "anil": ANILConfig(0.01, 10, 10)}
"""What the paper states of the inner steps of the methods that it runs itself."""


def paper_of(learner: str, test: EpisodeShape) -> dict[str, Any]:
    """Return the fields of an experiment that COMLN's authors set: E.5, and what their program adds to it.

    All methods have SGD at 0.1, on the horizon too, 60,000 updates of 8 tasks, 64 filters, and as many shots in
    training as at test. What the paper does not state of a method is as its authors have it.
    """
    original = original_of(learner, test)
    return {
        "learner": PAPER_STEPS.get(learner, original.learner),
        "optimiser": SGD(),
        "backbone": dataclasses.replace(original.backbone, filters=64),
        "steps": 60_000,
        "tasks_per_step": 8,
        "train": EpisodeShape(test.ways, test.shots, 15),
        "normalisation": original.normalisation,
    }


def apply(experiment: Experiment, learner: str, protocol: str) -> Experiment:
    """Return the experiment with this learner, trained by this protocol."""
    if protocol == "original":
        original = original_of(learner, experiment.test)
        names = (
            "learner",
            "optimiser",
            "backbone",
            "steps",
            "tasks_per_step",
            "train",
            "train_mixture",
            "normalisation",
        )
        return dataclasses.replace(experiment, **{name: getattr(original, name) for name in names})
    if protocol == "paper":
        return dataclasses.replace(experiment, **paper_of(learner, experiment.test))
    house = HOUSE[learner]
    changed = dataclasses.replace(
        experiment,
        learner=house.learner,
        backbone=dataclasses.replace(experiment.backbone, scale_output=house.scale_output),
        normalisation=house.normalisation,
    )
    optimiser = experiment.optimiser
    if house.learning_rate is not None:
        optimiser = dataclasses.replace(optimiser, learning_rate=house.learning_rate)
    return dataclasses.replace(
        changed, optimiser=optimiser, tasks_per_step=house.tasks_per_step or experiment.tasks_per_step
    )
