"""The benchmarks of the field, on data that are prepared by `comln data prepare`, and the numbers published for them.

Run:     comln train mini-imagenet-5way-1shot --learner comln --protocol paper
         comln train tiered-imagenet-5way-5shot-resnet12 --learner metaoptnet-rr
         comln train leo-mini-imagenet-5way-1shot --learner meta-sgd

One recipe for each data set and number of shots; the network is Conv-4 with 64 filters, or ResNet-12 at the end of the
name; the recipes of LEO's embeddings have no network. Training is selected by validation, every 1000 updates.
Costs: Conv-4 needs about 0.5 TFLOP an update, ResNet-12 about 17 (see the page on scaling): an accelerator, for hours
or for a day.
"""

__all__ = ["EXPERIMENTS", "PUBLISHED", "Published", "published"]

from dataclasses import dataclass

from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.optimiser import Adam
from comln.recipes.backbones import Conv4Config, IdentityConfig
from comln.recipes.experiment import Experiment

UPDATES, VALIDATE_EVERY, PATIENCE = 60_000, 1000, 15
SHOTS = (1, 5)

IMAGES = (
    PreparedData("mini-imagenet"),
    PreparedData("tiered-imagenet"),
    PreparedData("cifar-fs", image_size=32, padding=4),
    PreparedData("fc100", image_size=32, padding=4),
    PreparedData("cub"),
    PreparedData("omniglot", image_size=28, channels=1, padding=None),
)
EMBEDDINGS = (PreparedEmbeddings("leo-mini-imagenet"), PreparedEmbeddings("leo-tiered-imagenet"))


def _experiment(data: PreparedData | PreparedEmbeddings, shots: int) -> Experiment:
    of_images = isinstance(data, PreparedData)
    return Experiment(
        name=f"{data.name}-5way-{shots}shot",
        train=EpisodeShape(5, shots, 15),
        test=EpisodeShape(5, shots, 15),
        data=data,
        backbone=Conv4Config(64) if of_images else IdentityConfig(),
        optimiser=Adam(learning_rate=1e-3),
        steps=UPDATES if of_images else 2000,
        tasks_per_step=8,
        validate_every=VALIDATE_EVERY if of_images else 200,
        validation_tasks=2000,
        patience=PATIENCE,
    )


EXPERIMENTS = {
    experiment.name: experiment
    for data in (*IMAGES, *EMBEDDINGS)
    for experiment in (_experiment(data, shots) for shots in SHOTS)
}
"""By name."""


@dataclass(frozen=True)
class Published:
    """A row of the paper's tables: accuracy and the half-width of its 95 % interval, in percent.

    - `data`, `network`, `learner`: as in the names of recipes and learners.
    - `table`: of the paper.
    - `one_shot`, `five_shot`: of 5-way tasks.
    - `note`: what to know before comparing.
    """

    data: str
    network: str
    learner: str
    table: str
    one_shot: tuple[float, float]
    five_shot: tuple[float, float]
    note: str = ""


OTHERS = "copied by the paper from its authors, who trained and evaluated in another way"
OFFICIAL = "run by the authors of COMLN with the method's own program"
MINI, TIERED, LEO = "mini-imagenet", "tiered-imagenet", "leo-mini-imagenet"

PUBLISHED = (
    Published(MINI, "conv4", "maml", "2", (48.70, 1.84), (63.11, 0.92), OTHERS),
    Published(MINI, "conv4", "anil", "2", (46.30, 0.40), (61.00, 0.60), OTHERS),
    Published(MINI, "conv4", "meta-sgd", "2", (50.47, 1.87), (64.03, 0.94), OTHERS),
    Published(MINI, "conv4", "cavia", "2", (51.82, 0.65), (65.85, 0.55), f"{OTHERS}; 512 filters"),
    Published(MINI, "conv4", "imaml", "2", (49.30, 1.88), (59.77, 0.73), f"1-shot {OTHERS}; 5-shot {OFFICIAL}"),
    Published(MINI, "conv4", "metaoptnet-rr", "2", (53.23, 0.59), (69.51, 0.48), f"{OTHERS}; 15 training shots"),
    Published(MINI, "conv4", "metaoptnet-svm", "2", (52.87, 0.57), (68.76, 0.48), f"{OTHERS}; 15 training shots"),
    Published(MINI, "conv4", "comln", "2 and 4", (53.01, 0.62), (70.54, 0.54)),
    Published(TIERED, "conv4", "maml", "2", (51.67, 1.81), (70.30, 1.75), OTHERS),
    Published(TIERED, "conv4", "anil", "2", (49.35, 0.26), (65.82, 0.12), OTHERS),
    Published(TIERED, "conv4", "meta-sgd", "2", (52.80, 0.44), (62.35, 0.26), OTHERS),
    Published(TIERED, "conv4", "cavia", "2", (52.41, 2.64), (67.55, 2.05), OFFICIAL),
    Published(TIERED, "conv4", "imaml", "2", (38.54, 1.37), (60.24, 0.76), OFFICIAL),
    Published(TIERED, "conv4", "metaoptnet-rr", "2", (54.63, 0.67), (72.11, 0.59), f"{OTHERS}; 10 training shots"),
    Published(TIERED, "conv4", "metaoptnet-svm", "2", (54.71, 0.67), (71.79, 0.59), f"{OTHERS}; 10 training shots"),
    Published(TIERED, "conv4", "comln", "2", (54.30, 0.69), (71.35, 0.57)),
    Published(MINI, "resnet12", "maml", "2", (49.92, 0.65), (63.93, 0.59)),
    Published(MINI, "resnet12", "anil", "2", (49.65, 0.65), (59.51, 0.56)),
    Published(MINI, "resnet12", "metaoptnet-rr", "2", (61.41, 0.61), (77.88, 0.46), f"{OTHERS}; DropBlock"),
    Published(MINI, "resnet12", "metaoptnet-svm", "2", (62.64, 0.61), (78.63, 0.46), f"{OTHERS}; DropBlock, smoothing"),
    Published(MINI, "resnet12", "comln", "2", (59.26, 0.65), (77.26, 0.49)),
    Published(TIERED, "resnet12", "maml", "2", (55.37, 0.74), (72.93, 0.60)),
    Published(TIERED, "resnet12", "anil", "2", (54.77, 0.76), (69.28, 0.67)),
    Published(TIERED, "resnet12", "metaoptnet-rr", "2", (65.36, 0.71), (81.34, 0.52), f"{OTHERS}; DropBlock"),
    Published(TIERED, "resnet12", "metaoptnet-svm", "2", (65.99, 0.72), (81.56, 0.53), f"{OTHERS}; DropBlock"),
    Published(TIERED, "resnet12", "comln", "2", (62.93, 0.71), (81.13, 0.53)),
    Published(LEO, "none", "maml", "5", (50.35, 0.63), (65.28, 0.54)),
    Published(LEO, "none", "meta-sgd", "5", (50.57, 0.64), (69.09, 0.53), "Rusu et al. report 54.24 and 70.86"),
    Published(LEO, "none", "imaml", "5", (50.26, 0.61), (69.52, 0.51)),
    Published(LEO, "none", "r2d2", "5", (50.33, 0.62), (70.38, 0.52)),
    Published(LEO, "none", "lrd2", "5", (50.41, 0.62), (70.29, 0.52)),
    Published(LEO, "none", "leap", "5", (50.95, 0.62), (66.72, 0.55)),
    Published(
        LEO,
        "none",
        "metaoptnet-svm",
        "5",
        (40.60, 0.60),
        (50.94, 0.62),
        "the paper blames its solver; expect 50 and 70",
    ),
    Published(LEO, "none", "leo", "5", (61.76, 0.08), (77.59, 0.12), f"{OTHERS}; not a linear head on the embeddings"),
    Published(LEO, "none", "comln", "5", (50.39, 0.63), (70.06, 0.52)),
)
"""Tables 2, 4 and 5 of the paper, as far as this package has the method."""


def published(recipe: str, learner: str) -> tuple[Published, tuple[float, float]] | None:
    """Return the published row of a recipe and learner, and its accuracy; `None` where there is none.

    >>> published("mini-imagenet-5way-1shot", "comln")[1]
    (53.01, 0.62)
    >>> published("mini-imagenet-5way-5shot-resnet12", "comln")[1]
    (77.26, 0.49)
    """
    plain = recipe.removesuffix("-resnet12")
    if plain not in EXPERIMENTS:
        return None
    data, shots = plain.split("-5way-")
    network = "resnet12" if plain != recipe else "none" if data.startswith("leo-") else "conv4"
    for row in PUBLISHED:
        if (row.data, row.network, row.learner) == (data, network, learner):
            return row, row.one_shot if shots == "1shot" else row.five_shot
    return None
