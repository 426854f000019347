"""Runs that were never trained, made on the spot, and folders of glyphs to try them on."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from comln.data.glyphs import load_glyphs
from comln.data.input_form import InputForm
from comln.data.prepared import PreparedEmbeddings
from comln.data.sampling import EpisodeShape
from comln.data.sources.embedding_rows import Normalise
from comln.recipes import find
from comln.recipes.backbones import IdentityConfig
from comln.run import Run
from comln.selection import Selection


def experiment(learner="comln", filters=4, ways=5, data=None, **settings):
    """Return the experiment of a learner on glyphs, with a narrow network."""
    found = find("glyphs-5way-1shot", learner, "house")
    backbone = dataclasses.replace(found.backbone, filters=filters) if data is None else IdentityConfig()
    return dataclasses.replace(
        found,
        backbone=backbone,
        data=found.data if data is None else data,
        train=EpisodeShape(ways, 1, 5),
        test=EpisodeShape(ways, 1, 15),
        **settings,
    )


def untrained(found, inputs: InputForm | None = None) -> Run:
    learner = found.build(0)
    statistics = learner.backbone.initial_statistics()
    inputs = found.data.input_form() if inputs is None else inputs
    return Run(found, 0, learner, statistics, 0, 0, Selection(), "no data", inputs)


def untrained_on_embeddings(learner="comln", features=3, normalise: Normalise = "none", ways=5) -> Run:
    data = PreparedEmbeddings("mine", features=features)
    return untrained(experiment(learner, data=data, ways=ways), InputForm((features,), normalise=normalise))


def glyphs(ways: int, each: int):
    """Return test glyphs `(way, each, 28, 28)`, each in another typeface as long as there are such."""
    split = load_glyphs()["test"]
    chosen = [np.flatnonzero(split.class_of == 5 * c)[:each] for c in range(ways)]
    return split.examples[np.stack(chosen)][..., 0]


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
