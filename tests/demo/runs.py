"""Runs for the page's tests: untrained, which changes nothing of what the page does with them."""

import dataclasses

from comln.data.glyphs import load_glyphs
from comln.demo.demonstration import Demonstration, prepare_demonstration
from comln.recipes import glyphs_5way_1shot
from comln.recipes.backbones import Conv4Config
from comln.run import Run
from comln.selection import Selection


def untrained_run(**changes) -> Run:
    experiment = dataclasses.replace(glyphs_5way_1shot.EXPERIMENT, **{"backbone": Conv4Config(filters=16), **changes})
    learner = experiment.build(0)
    return Run(experiment, 0, learner, learner.backbone.initial_statistics(), 0, 0, Selection(), "")


def demonstration(**changes) -> Demonstration:
    return prepare_demonstration("a run", untrained_run(**changes), load_glyphs())
