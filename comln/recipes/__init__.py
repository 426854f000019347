"""Named experiments, one file each; `find` takes a name, a learner and a protocol to an experiment."""

__all__ = ["LEARNERS", "NAMES", "PROTOCOLS", "RECIPES", "Experiment", "find"]

import dataclasses
import difflib

from comln.data.prepared import PreparedEmbeddings
from comln.recipes import glyphs_5way_1shot, glyphs_5way_5shot, glyphs_20way_1shot
from comln.recipes.backbones import BACKBONES
from comln.recipes.benchmarks import EXPERIMENTS
from comln.recipes.experiment import Experiment
from comln.recipes.protocols import LEARNERS, PROTOCOLS, apply

RECIPES = (glyphs_5way_1shot, glyphs_5way_5shot, glyphs_20way_1shot)
"""The modules of the experiments on embedded data; a module's docstring says what to expect of it."""

_PLAIN = {module.EXPERIMENT.name: module.EXPERIMENT for module in RECIPES} | EXPERIMENTS
_WITH_NETWORK = {
    f"{plain}-{network}": (plain, network)
    for plain, experiment in _PLAIN.items()
    for network in BACKBONES
    if not isinstance(experiment.data, PreparedEmbeddings)
}

NAMES = (*_PLAIN, *_WITH_NETWORK)
"""Everything that `find` finds: each recipe, and each with another network."""


def find(name: str, learner: str, protocol: str) -> Experiment:
    """Return the experiment of this name, with this learner, in this protocol.

    - `name`: of a recipe; or that and `-resnet12`, for the same experiment with that network.
    - `protocol`: `house` (one recipe for all methods, the horizon in an optimiser group of its own), `original` (as
      the method's authors train it) or `paper` (SGD 0.1 on everything, as the authors of COMLN train all methods).

    **Raises:** `ValueError` for a name that is not known, with the nearest that is.
    """
    for what, word, known in (
        ("recipe", name, NAMES),
        ("learner", learner, LEARNERS),
        ("protocol", protocol, PROTOCOLS),
    ):
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1, cutoff=0.0)
            raise ValueError(f"Unknown {what} {word!r}. Did you mean {near[0]!r}? Known: {', '.join(known)}.")
    if name in _PLAIN:
        return apply(_PLAIN[name], learner, protocol)
    plain, network = _WITH_NETWORK[name]
    experiment = dataclasses.replace(_PLAIN[plain], name=name, backbone=BACKBONES[network])
    return apply(experiment, learner, protocol)
