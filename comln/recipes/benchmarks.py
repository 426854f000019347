"""The benchmarks of the field, on data that are prepared by `comln data prepare`, and the numbers published for them.

Run:     comln train mini-imagenet-5way-1shot --learner comln --protocol paper
         comln train tiered-imagenet-5way-5shot-resnet12 --learner metaoptnet-rr
         comln train leo-mini-imagenet-5way-1shot --learner meta-sgd
         comln train mini-imagenet-5way-1shot --protocol paper --learner.integrator euler

One recipe for each data set and number of shots; the network is Conv-4 with 64 filters, or ResNet-12 at the end of the
name; the recipes of LEO's embeddings have no network. Training is selected by 2000 validation tasks every 1000 updates.
`comln recipes mini-imagenet-5way-1shot` shows what the paper has for each method, and from whom; with `--learner`, how
the protocols set it.
Costs: Conv-4 needs about 0.5 TFLOP an update, ResNet-12 about 17 (see the page on scaling): an accelerator, for hours
or for a day.
"""

__all__ = ["EXPERIMENTS", "PUBLISHED", "REMEMBERED", "Number", "Published", "published", "published_of"]

from dataclasses import dataclass

from comln.data.prepared import PreparedData, PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.optimiser import Adam
from comln.recipes.backbones import Conv4Config, IdentityConfig
from comln.recipes.experiment import Experiment

UPDATES, VALIDATE_EVERY = 60_000, 1000
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
    - `sources`: who measured the two, and whether that was read or is remembered.
    - `note`: what to know before comparing.
    - `options`: what is added to the command for this row, where it is not the method as it is.
    """

    data: str
    network: str
    learner: str
    table: str
    one_shot: tuple[float, float]
    five_shot: tuple[float, float]
    sources: tuple[str, str]
    note: str = ""
    options: str = ""


@dataclass(frozen=True)
class Number:
    """One published accuracy.

    - `accuracy`, `ci95`: and the half-width of its 95 % interval, in percent.
    - `table`, `source`, `note`: as of its row.
    """

    accuracy: float
    ci95: float
    table: str
    source: str
    note: str


REMEMBERED = "remembered"
"""In a source that Table 3 tells by a mark, and no copy of the paper at hand had legible marks."""


def _both(source: str) -> tuple[str, str]:
    return source, source


def _remembered(source: str) -> tuple[str, str]:
    return _both(f"{source} ({REMEMBERED})")


FINN, RAGHU, LI = _remembered("Finn et al., 2017"), _remembered("Raghu et al., 2019"), _remembered("Li et al., 2017")
ZINTGRAF, RAJESWARAN = _remembered("Zintgraf et al., 2019"), _remembered("Rajeswaran et al., 2019")
LEE, LIU, OH = _remembered("Lee et al., 2019"), _remembered("Liu et al., 2019"), _remembered("Oh et al., 2021")
AIMEN, ARNOLD = _remembered("Aimen et al., 2021"), _remembered("Arnold et al., 2021")
OFFICIAL = _both("run by the authors of COMLN with the method's own program (a star in Table 2)")
COMLN = _both("the paper itself")
SECTION_E4 = _both("run by the authors of COMLN (Section E.4)")
RUSU = _both("Rusu et al., 2018, copied by the paper")

OTHERWISE = "trained and evaluated in another way than the paper's own rows"
SHOTS_15, SHOTS_10 = f"{OTHERWISE}: 15 training shots", f"{OTHERWISE}: 10 training shots"
CAVIA_64 = "64 filters, settings that its authors give for miniImageNet"
IMAML_1 = "settings that its authors give for 1-shot tasks on miniImageNet"
BY_EULER = "--learner.integrator euler"
MINI, TIERED, LEO = "mini-imagenet", "tiered-imagenet", "leo-mini-imagenet"

PUBLISHED = (
    Published(MINI, "conv4", "maml", "2", (48.70, 1.84), (63.11, 0.92), FINN, f"{OTHERWISE}: 32 filters"),
    Published(MINI, "conv4", "anil", "2", (46.30, 0.40), (61.00, 0.60), RAGHU, OTHERWISE),
    Published(MINI, "conv4", "meta-sgd", "2", (50.47, 1.87), (64.03, 0.94), LI, OTHERWISE),
    Published(MINI, "conv4", "cavia", "2", (51.82, 0.65), (65.85, 0.55), ZINTGRAF, f"{OTHERWISE}: 512 filters"),
    Published(
        MINI,
        "conv4",
        "imaml",
        "2",
        (49.30, 1.88),
        (59.77, 0.73),
        (RAJESWARAN[0], OFFICIAL[1]),
        f"1-shot {OTHERWISE}; 5-shot with {IMAML_1}",
    ),
    Published(MINI, "conv4", "metaoptnet-rr", "2", (53.23, 0.59), (69.51, 0.48), LEE, SHOTS_15),
    Published(MINI, "conv4", "metaoptnet-svm", "2", (52.87, 0.57), (68.76, 0.48), LEE, SHOTS_15),
    Published(
        MINI,
        "conv4",
        "comln",
        "2 and 4",
        (53.01, 0.62),
        (70.54, 0.54),
        COMLN,
        "Table 4: by a method of Runge and Kutta",
    ),
    Published(
        MINI,
        "conv4",
        "comln",
        "4",
        (53.00, 0.83),
        (70.50, 0.72),
        COMLN,
        "the length of the steps is not stated; the intervals are a third wider than those of as many tasks by Runge "
        "and Kutta's method, which is not explained",
        options=BY_EULER,
    ),
    Published(TIERED, "conv4", "maml", "2", (51.67, 1.81), (70.30, 1.75), LIU, OTHERWISE),
    Published(TIERED, "conv4", "anil", "2", (49.35, 0.26), (65.82, 0.12), OH, OTHERWISE),
    Published(TIERED, "conv4", "meta-sgd", "2", (52.80, 0.44), (62.35, 0.26), AIMEN, OTHERWISE),
    Published(TIERED, "conv4", "cavia", "2", (52.41, 2.64), (67.55, 2.05), OFFICIAL, CAVIA_64),
    Published(TIERED, "conv4", "imaml", "2", (38.54, 1.37), (60.24, 0.76), OFFICIAL, IMAML_1),
    Published(TIERED, "conv4", "metaoptnet-rr", "2", (54.63, 0.67), (72.11, 0.59), LEE, SHOTS_10),
    Published(TIERED, "conv4", "metaoptnet-svm", "2", (54.71, 0.67), (71.79, 0.59), LEE, SHOTS_10),
    Published(TIERED, "conv4", "comln", "2", (54.30, 0.69), (71.35, 0.57), COMLN),
    Published(MINI, "resnet12", "maml", "2", (49.92, 0.65), (63.93, 0.59), ARNOLD, OTHERWISE),
    Published(MINI, "resnet12", "anil", "2", (49.65, 0.65), (59.51, 0.56), ARNOLD, OTHERWISE),
    Published(
        MINI,
        "resnet12",
        "metaoptnet-rr",
        "2",
        (61.41, 0.61),
        (77.88, 0.46),
        LEE,
        f"{SHOTS_15}, dropout, DropBlock, smoothed labels",
    ),
    Published(
        MINI,
        "resnet12",
        "metaoptnet-svm",
        "2",
        (62.64, 0.61),
        (78.63, 0.46),
        LEE,
        f"{SHOTS_15}, dropout, DropBlock, smoothed labels; others report 60.4 to 60.6 and 77.4 from the same program",
    ),
    Published(MINI, "resnet12", "comln", "2", (59.26, 0.65), (77.26, 0.49), COMLN),
    Published(TIERED, "resnet12", "maml", "2", (55.37, 0.74), (72.93, 0.60), ARNOLD, OTHERWISE),
    Published(TIERED, "resnet12", "anil", "2", (54.77, 0.76), (69.28, 0.67), ARNOLD, OTHERWISE),
    Published(
        TIERED,
        "resnet12",
        "metaoptnet-rr",
        "2",
        (65.36, 0.71),
        (81.34, 0.52),
        LEE,
        f"{SHOTS_10}, dropout, DropBlock",
    ),
    Published(
        TIERED,
        "resnet12",
        "metaoptnet-svm",
        "2",
        (65.99, 0.72),
        (81.56, 0.53),
        LEE,
        f"{SHOTS_10}, dropout, DropBlock",
    ),
    Published(TIERED, "resnet12", "comln", "2", (62.93, 0.71), (81.13, 0.53), COMLN),
    Published(LEO, "none", "maml", "5", (50.35, 0.63), (65.28, 0.54), SECTION_E4),
    Published(
        LEO,
        "none",
        "meta-sgd",
        "5",
        (50.57, 0.64),
        (69.09, 0.53),
        SECTION_E4,
        "Rusu et al., 2018, report 54.24 ± 0.03 and 70.86 ± 0.04, trained on validation classes too",
    ),
    Published(LEO, "none", "imaml", "5", (50.26, 0.61), (69.52, 0.51), SECTION_E4),
    Published(LEO, "none", "r2d2", "5", (50.33, 0.62), (70.38, 0.52), SECTION_E4),
    Published(LEO, "none", "lrd2", "5", (50.41, 0.62), (70.29, 0.52), SECTION_E4),
    Published(LEO, "none", "leap", "5", (50.95, 0.62), (66.72, 0.55), SECTION_E4),
    Published(
        LEO,
        "none",
        "metaoptnet-svm",
        "5",
        (40.60, 0.60),
        (50.94, 0.62),
        SECTION_E4,
        "the paper blames its solver: separate support vector machines reach about 50 and 70, and so should this",
    ),
    Published(
        LEO,
        "none",
        "leo",
        "5",
        (61.76, 0.08),
        (77.59, 0.12),
        RUSU,
        f"{OTHERWISE}: on validation classes too; not a linear head on the embeddings",
    ),
    Published(LEO, "none", "comln", "5", (50.39, 0.63), (70.06, 0.52), COMLN),
)
"""Tables 2, 4 and 5 of the paper, as far as this package has the method.

Table 3 tells by marks which source each copied number of Table 2 is from: Liu et al., Oh et al., Aimen et al.,
Arnold et al., or the method's own authors. The marks were not legible; which number is whose is remembered, and each
row says so.
"""


def published(recipe: str, learner: str, options: str = "") -> Number | None:
    """Return what the paper has for a recipe and learner, with these options; `None` where it has nothing.

    >>> published("mini-imagenet-5way-1shot", "comln").accuracy
    53.01
    >>> published("mini-imagenet-5way-1shot", "comln", "--learner.integrator euler").accuracy
    53.0
    >>> published("mini-imagenet-5way-5shot-resnet12", "comln").source
    'the paper itself'
    """
    return published_of(recipe).get((learner, options))


def published_of(recipe: str) -> dict[tuple[str, str], Number]:
    """Return all that the paper has for a recipe, by learner and options."""
    plain = recipe.removesuffix("-resnet12")
    if plain not in EXPERIMENTS:
        return {}
    data, shots = plain.split("-5way-")
    network = "resnet12" if plain != recipe else "none" if data.startswith("leo-") else "conv4"
    one_shot = shots == "1shot"
    return {
        (row.learner, row.options): Number(
            *(row.one_shot if one_shot else row.five_shot), row.table, row.sources[0 if one_shot else 1], row.note
        )
        for row in PUBLISHED
        if (row.data, row.network) == (data, network)
    }
