"""How the authors of each method train it, on the data and the network of an experiment, and how sure that is."""

__all__ = ["Original", "original_of"]

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comln.backbones import Normalisation
from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.learners import ConjugateGradients, ProximalPull
from comln.optimiser import SGD, Adam, StepwiseAdam
from comln.recipes.backbones import BackboneConfig, Conv4Config, ResNet12Config
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


@dataclass(frozen=True)
class Original:
    """A method as its authors train it, and how sure that is.

    - `learner`, `optimiser`, `backbone`, `steps`, `tasks_per_step`: as in an experiment.
    - `train`: shape of the training tasks. `train_mixture`: of which each update takes one, where there are several.
    - `normalisation`: batch statistics at evaluation.
    - `varies_images`: whether training images are varied as by Lee et al. (2019), or not at all.
    - `patience`: validations, 1000 updates apart, without a better one after which the authors stop; 0 where they
      train to the end, or to an end that is stated nowhere.
    - `from_paper`, `from_code`: settings that were read in the method's paper, or in its authors' program.
    - `from_memory`: settings that are remembered, and could not be verified.
    - `chosen`: settings that are stated nowhere, or cannot be had here, and what was chosen.
    """

    learner: LearnerConfig
    optimiser: Adam | SGD | StepwiseAdam
    backbone: BackboneConfig
    steps: int
    tasks_per_step: int
    train: EpisodeShape
    normalisation: Normalisation
    train_mixture: tuple[EpisodeShape, ...] = ()
    varies_images: bool = False
    patience: int = 0
    from_paper: str = ""
    from_code: str = ""
    from_memory: str = ""
    chosen: str = ""


def original_of(learner: str, experiment: Experiment) -> Original:
    """Return how the authors of a method train it, for the data, the network and the test tasks of an experiment.

    **Raises:** `ValueError` for a method whose authors' settings are not known here.

    **Example:** Lee et al. train with 15 shots on miniImageNet, whatever there are at test.

    >>> from comln.recipes.benchmarks import EXPERIMENTS
    >>> original_of("metaoptnet-rr", EXPERIMENTS["mini-imagenet-5way-1shot"]).train
    EpisodeShape(ways=5, shots=15, queries=6)
    """
    if learner not in ORIGINALS:
        raise ValueError(f"Nobody's own settings of {learner!r} are known. Use --protocol house.")
    return ORIGINALS[learner](experiment)


def _comln(experiment: Experiment) -> Original:
    tasks = "8 tasks; 60,000 updates"
    if isinstance(experiment.data, PreparedEmbeddings):
        tasks += ", where a notebook of the authors takes 16 tasks and 2,000 updates"
    return Original(
        COMLNConfig(initial_horizon=1.0),
        SGD(),
        _network(experiment, 64, scale_output=True),
        60_000,
        8,
        _same_shots(experiment),
        Normalisation.RUNNING,
        varies_images=True,
        from_paper=_phrases(
            "SGD with Nesterov momentum, its rate and schedule",
            _if_conv4(experiment, "64 filters"),
            "proximal weight 0",
        ),
        from_code="T starts at 1; 15 queries; no weight decay on T",
        chosen=_phrases(
            tasks,
            "the flow is followed by Tsitouras' method, where the authors take that of Dormand and Prince",
            "all updates are made, where the caption of the paper's Figure 5 speaks of early stopping without a rule",
            _unless_fixed(experiment, "running batch statistics; embeddings divided by the root of their size"),
            _if_varied(experiment, "images are varied as by Lee et al., of which the paper is silent"),
        ),
    )


def _maml(experiment: Experiment) -> Original:
    ways = experiment.test.ways
    return Original(
        MAMLConfig(step=0.01 * ways, steps=5, test_steps=10),
        StepwiseAdam(1e-3, clip_numbers=10.0),
        _network(experiment, 32),
        60_000,
        4,
        _same_shots(experiment),
        Normalisation.BATCH,
        from_code=f"inner step, steps, updates, tasks, queries in training{_if_conv4(experiment, ', filters')}, "
        "optimiser, clipping; their loss is the mean loss times the ways, so the step is 0.01 ways",
        chosen=_phrases(
            _other_network(experiment),
            _images(experiment, "divide by 255"),
            "test tasks keep their queries, where the authors take as many queries as shots",
        ),
    )


def _anil(experiment: Experiment) -> Original:
    return Original(
        ANILConfig(step=0.01 * experiment.test.ways, steps=5, test_steps=10),
        StepwiseAdam(1e-3),
        _network(experiment, 32),
        30_000,
        4,
        _same_shots(experiment),
        Normalisation.BATCH,
        from_memory="all; the step is 0.01 ways, as for MAML",
        chosen=_phrases(
            _other_network(experiment),
            _images(experiment),
            _unless_fixed(
                experiment,
                "in training all tasks of an update share the batch statistics, in evaluation each task has its own",
            ),
        ),
    )


def _meta_sgd(experiment: Experiment) -> Original:
    return Original(
        MetaSGDConfig(initial_step=0.01 * experiment.test.ways, steps=1, test_steps=1),
        StepwiseAdam(1e-3),
        _network(experiment, 32),
        60_000,
        _few_tasks(experiment),
        _same_shots(experiment),
        Normalisation.BATCH,
        from_memory="all but the following; step sizes are drawn from 0.005 to 0.1",
        chosen=_phrases(
            _other_network(experiment),
            _images(experiment),
            "step sizes start at 0.01 ways, inside that range where the loss is MAML's",
        ),
    )


def _cavia(experiment: Experiment) -> Original:
    return Original(
        CAVIAConfig(context_size=100, step=1.0, steps=2, test_steps=2),
        StepwiseAdam(1e-3, decay=0.9, clip_numbers=10.0),
        _network(experiment, 32),
        60_000,
        _few_tasks(experiment),
        _same_shots(experiment),
        Normalisation.BATCH,
        from_code="network, context, steps, updates, tasks, queries, optimiser, clipping",
        from_memory="the best published number is of 512 filters (--backbone.filters 512)",
        chosen=_images(experiment, "take constants of ImageNet"),
    )


def _imaml(experiment: Experiment) -> Original:
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
        _network(experiment, 32),
        20_000,
        16,
        _same_shots(experiment),
        Normalisation.BATCH,
        from_code="the linear system with damping 1 and shift 10; 5 iterations; the pull in one last step, and "
        "nowhere in evaluation; Adam with epsilon 1e-3; 20,000 updates, on Omniglot",
        chosen=_phrases(
            f"proximal weight 0.5, 10 steps of 0.1, 16 tasks, 15 queries{_if_conv4(experiment, ' and 32 filters')}, "
            "from a reproduction by others",
            _other_network(experiment),
            _images(experiment),
        ),
    )


TRAINING_SHOTS = {"mini-imagenet": 15, "tiered-imagenet": 10, "cifar-fs": 5, "fc100": 15}
"""Of Lee et al. (2019), for any number at test."""
DROP_BLOCK_SIZES = {84: 5, 32: 2}
"""Their squares, by pixels a side of the images: as wide as the last features."""
SMOOTHING = 0.1
"""Their label smoothing, of ResNet-12 on miniImageNet."""


def _metaoptnet_ridge(experiment: Experiment) -> Original:
    head = MetaOptNetRidgeConfig(50.0, query_smoothing=_metaoptnet_smoothing(experiment))
    return _metaoptnet(experiment, head)


def _metaoptnet_svm(experiment: Experiment) -> Original:
    smoothing = _metaoptnet_smoothing(experiment)
    return _metaoptnet(
        experiment, MetaOptNetSVMConfig(0.1, iterations=15, test_iterations=3, query_smoothing=smoothing)
    )


def _metaoptnet_smoothing(experiment: Experiment) -> float:
    """Return the share of Lee et al., who smooth labels for ResNet-12 on miniImageNet and nowhere else."""
    of_mini = _data_name(experiment) == "mini-imagenet"
    return SMOOTHING if of_mini and isinstance(experiment.backbone, ResNet12Config) else 0.0


def _metaoptnet(experiment: Experiment, head: MetaOptNetRidgeConfig | MetaOptNetSVMConfig) -> Original:
    shots, shots_from_code, shots_chosen = _metaoptnet_shots(experiment)
    backbone = _network(experiment, 64)
    dropped = remembered = ""
    if isinstance(backbone, ResNet12Config):
        image_size = experiment.data.example_shape[0]
        backbone = dataclasses.replace(backbone, dropout=0.1)
        dropped = "dropout 0.1"
        if image_size in DROP_BLOCK_SIZES:
            size = DROP_BLOCK_SIZES[image_size]
            backbone = dataclasses.replace(backbone, drop_block=0.1, drop_block_size=size, drop_block_calls=20_000)
            dropped += " and DropBlock 0.1, which grows over 40,000 passes, two of them an update"
            remembered = "" if size == 5 else f"squares of DropBlock are {size} pixels wide"
    return Original(
        head,
        SGD(),
        backbone,
        60_000,
        8,
        EpisodeShape(experiment.test.ways, shots, 6),
        Normalisation.RUNNING,
        varies_images=True,
        from_code=_phrases(
            f"head, solver iterations, updates, tasks, queries in training{_if_conv4(experiment, ', filters')}, "
            "optimiser, schedule, the best of validations after every 1000 updates",
            shots_from_code,
            dropped,
            f"label smoothing {SMOOTHING}, by their command for the SVM on miniImageNet"
            if head.query_smoothing
            else "",
            _if_varied(experiment, "images are cropped, coloured and mirrored"),
        ),
        from_memory=remembered,
        chosen=_phrases(
            shots_chosen,
            "validation has the shots of the test, where theirs has 5",
            _unless_fixed(
                experiment, "support and query are normalised together, where the authors make a pass for each"
            ),
            _if_glyphs(experiment, "glyphs are jittered, where the authors crop, colour and flip"),
        ),
    )


def _metaoptnet_shots(experiment: Experiment) -> tuple[int, str, str]:
    """Return the shots of training, and who says so: the authors' program, or we."""
    name = _data_name(experiment)
    if name in TRAINING_SHOTS:
        return TRAINING_SHOTS[name], f"{TRAINING_SHOTS[name]} training shots, for any number at test", ""
    of_images = name.removeprefix("leo-")
    if of_images in TRAINING_SHOTS:
        shots = TRAINING_SHOTS[of_images]
        return shots, "", f"{shots} training shots, as the authors have for the images of this data set"
    shots = max(experiment.test.shots, 5)
    return shots, "", f"{shots} training shots, where the authors use 5 to 15 for other data"


def _r2d2(experiment: Experiment) -> Original:
    return _bertinetto(experiment, R2D2Config(50.0, initial_scale=1e-4), ways=16, images_a_class=15)


def _lrd2(experiment: Experiment) -> Original:
    return _bertinetto(experiment, LRD2Config(50.0, iterations=5), ways=10, images_a_class=20)


def _bertinetto(experiment: Experiment, head: R2D2Config | LRD2Config, ways: int, images_a_class: int) -> Original:
    mixture = tuple(EpisodeShape(ways, k, images_a_class - k) for k in range(1, 10))
    network = "fixed embeddings" if isinstance(experiment.data, PreparedEmbeddings) else "ResNet-12"
    if isinstance(experiment.backbone, Conv4Config):
        network = "the house network with 64 filters, ReLU and no dropout"
    return Original(
        head,
        StepwiseAdam(5e-3, decay=0.5, decay_every=2000),
        _network(experiment, 64),
        120_000,
        1,
        mixture[0],
        Normalisation.RUNNING,
        mixture,
        patience=20,
        from_code="head, ways, shots, examples of an update, optimiser, schedule; training stops after 20,000 updates "
        "without a better validation",
        chosen=_phrases(
            f"{network}, instead of their network with 96 to 512 filters, leaky ReLU, dropout and two joined blocks",
            "validation every 1000 updates, where theirs is every 100; the shots of the test, where they keep a state "
            "for 1 shot and one for 5",
            "" if experiment.validate_every else "without validation, all updates are made",
            _images(experiment, "divide by 255"),
            "5 Newton steps, of their 1 or 5" if isinstance(head, LRD2Config) else "",
        ),
    )


CONSTANT_RATE = SGD(falls=(1.0, 1.0, 1.0), momentum=0.0, weight_decay=0.0)


def _leap(experiment: Experiment) -> Original:
    return Original(
        LeapConfig(step=0.1, steps=100, test_steps=100),
        CONSTANT_RATE,
        _network(experiment, 64),
        1000,
        20,
        _same_shots(experiment),
        Normalisation.BATCH,
        from_code="step, steps, updates, tasks and optimiser, for tasks of many examples of Omniglot",
        chosen=_phrases(
            "the steps see the whole support",
            _unless_fixed(
                experiment, "statistics of the batch in evaluation too, where the authors use running averages"
            ),
            _other_network(experiment),
            _images(experiment),
        ),
    )


@dataclass(frozen=True)
class TunedLEO:
    """What Rusu et al. tuned for each data set and number of shots."""

    learning_rate: float
    l2_penalty: float
    orthogonality_penalty: float
    dropout: float
    kl_weight: float
    encoder_penalty: float


TUNED_LEO = {
    ("mini-imagenet", 1): TunedLEO(2.739e-4, 3.62e-10, 0.188, 0.308, 0.756, 5.76e-6),
    ("mini-imagenet", 5): TunedLEO(4.102e-4, 8.54e-9, 1.52e-3, 0.300, 0.466, 2.66e-7),
    ("tiered-imagenet", 1): TunedLEO(8.659e-4, 4.15e-10, 5.45e-3, 0.475, 2.03e-3, 8.30e-5),
    ("tiered-imagenet", 5): TunedLEO(6.110e-4, 1.69e-10, 2.48e-2, 0.415, 1.62, 2.67e-5),
}
"""By data set and shots."""


def _leo(experiment: Experiment) -> Original:
    name, shots = _data_name(experiment).removeprefix("leo-"), 1 if experiment.test.shots == 1 else 5
    of_name = name if (name, shots) in TUNED_LEO else "mini-imagenet"
    tuned = TUNED_LEO[of_name, shots]
    fixed = isinstance(experiment.data, PreparedEmbeddings)
    return Original(
        LEOConfig(
            latent_size=64,
            latent_step=1.0,
            weight_step=1e-3,
            steps_in_latents=5,
            steps_in_weights=5,
            dropout=tuned.dropout,
            kl_weight=tuned.kl_weight,
            encoder_penalty=tuned.encoder_penalty,
            l2_penalty=tuned.l2_penalty,
            orthogonality_penalty=tuned.orthogonality_penalty,
        ),
        StepwiseAdam(tuned.learning_rate, clip_numbers=0.1, clip_arrays=0.1),
        _network(experiment, 64, scale_output=True),
        100_000,
        12,
        _same_shots(experiment),
        Normalisation.RUNNING,
        from_code="code, steps, penalties, dropout, tasks, updates, optimiser and clipping, as tuned for embeddings of "
        f"{of_name} at {shots} shot{'' if shots == 1 else 's'}; the best of validations of 2000 tasks, every 1000 "
        "updates",
        chosen=_phrases(
            "validation and test have 15 queries a class, where the authors take all other examples",
            "embeddings are as they were prepared, where the authors' are of norm one"
            if fixed
            else "the network is trained along, where the authors' embeddings are fixed and of norm one",
        ),
    )


def _protonet(experiment: Experiment) -> Original:
    return Original(
        ProtoNetConfig(),
        StepwiseAdam(1e-3, decay=0.5, decay_every=2000),
        _network(experiment, 64),
        20_000,
        1,
        EpisodeShape(max(experiment.test.ways, 20), experiment.test.shots, 15),
        Normalisation.RUNNING,
        from_memory="all",
        chosen=_phrases(_other_network(experiment), _images(experiment)),
    )


ORIGINALS: Mapping[str, Callable[[Experiment], Original]] = {
    "comln": _comln,
    "maml": _maml,
    "anil": _anil,
    "meta-sgd": _meta_sgd,
    "cavia": _cavia,
    "imaml": _imaml,
    "metaoptnet-rr": _metaoptnet_ridge,
    "metaoptnet-svm": _metaoptnet_svm,
    "r2d2": _r2d2,
    "lrd2": _lrd2,
    "leap": _leap,
    "leo": _leo,
    "protonet": _protonet,
}
"""What each method's authors do, by the method's name."""


def _network(experiment: Experiment, filters: int, *, scale_output: bool = False) -> BackboneConfig:
    """Return the experiment's network; four blocks get the authors' number of filters."""
    match experiment.backbone:
        case Conv4Config() as conv4:
            return dataclasses.replace(conv4, filters=filters, scale_output=scale_output)
        case ResNet12Config() as resnet12:
            return dataclasses.replace(resnet12, scale_output=scale_output)
        case identity:
            return identity


def _same_shots(experiment: Experiment) -> EpisodeShape:
    return EpisodeShape(experiment.test.ways, experiment.test.shots, 15)


def _few_tasks(experiment: Experiment) -> int:
    return 4 if experiment.test.shots == 1 else 2


def _data_name(experiment: Experiment) -> str:
    data = experiment.data
    return data.name if isinstance(data, PreparedData | PreparedEmbeddings) else "glyphs"


def _phrases(*phrases: str) -> str:
    return "; ".join(phrase for phrase in phrases if phrase)


def _if_conv4(experiment: Experiment, phrase: str) -> str:
    return phrase if isinstance(experiment.backbone, Conv4Config) else ""


def _unless_fixed(experiment: Experiment, phrase: str) -> str:
    return "" if isinstance(experiment.data, PreparedEmbeddings) else phrase


def _if_glyphs(experiment: Experiment, phrase: str) -> str:
    return "" if isinstance(experiment.data, PreparedData | PreparedEmbeddings) else phrase


def _if_varied(experiment: Experiment, phrase: str) -> str:
    data = experiment.data
    return phrase if isinstance(data, PreparedData) and data.padding is not None else ""


def _other_network(experiment: Experiment) -> str:
    """Say how the network differs from the four blocks of the authors."""
    if isinstance(experiment.data, PreparedEmbeddings):
        return "fixed embeddings, where the authors train a network"
    if isinstance(experiment.backbone, ResNet12Config):
        return "ResNet-12, where the authors have four blocks"
    return "the house network's biases, initialisation and normalisation"


def _images(experiment: Experiment, theirs: str = "") -> str:
    """Say how images differ from those of authors who vary nothing, and scale pixels in `their` way if it is known."""
    if isinstance(experiment.data, PreparedData) and theirs:
        return f"pixels are normalised by constants of the data set, where the authors {theirs}"
    return _if_glyphs(experiment, "glyphs are jittered in training, where the authors vary nothing")
