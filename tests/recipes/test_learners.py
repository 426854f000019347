import dataclasses
import math

import pytest

from comln.backbones import Normalisation
from comln.data.sampling import EpisodeShape
from comln.recipes import LEARNERS, find
from comln.recipes.protocols import HOUSE

NAME = "glyphs-5way-1shot"


@pytest.mark.parametrize("learner", LEARNERS)
def test_no_number_of_a_learner_may_be_senseless(learner):
    """Whatever is set to NaN, or to a negative count, is refused by name, before anything is built."""
    config = HOUSE[learner].learner
    for name in (field.name for field in dataclasses.fields(config)):
        senseless = {float: math.nan, int: -1}.get(type(getattr(config, name)))
        if senseless is not None:
            with pytest.raises(ValueError, match=f"The learner's {name} must be"):
                dataclasses.replace(config, **{name: senseless})


@pytest.mark.parametrize(
    ("learner", "field", "value", "message"),
    [
        ("anil", "steps", -1, "steps must be at least 0"),
        ("anil", "query_smoothing", 1.5, "query_smoothing must be at least 0 and below 1"),
        ("cavia", "context_size", 0, "context_size must be at least 1"),
        ("metaoptnet-svm", "bound", 0.0, "bound must be above 0"),
        ("metaoptnet-rr", "regularisation", -50.0, "regularisation must be above 0"),
        ("maml", "step", math.inf, "step must be at least 0 and finite"),
        ("leap", "steps", 0, "steps must be at least 1"),
        ("comln", "initial_horizon", 0.0, "initial_horizon must be above 0"),
        ("imaml", "proximal", 0.0, "proximal must be above 0"),
        ("leo", "dropout", 1.0, "dropout must be at least 0 and below 1"),
        ("lrd2", "iterations", 0, "iterations must be at least 1"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(learner, field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HOUSE[learner].learner, **{field: value})


@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "cavia", "imaml", "leap"])
def test_statistics_that_a_method_cannot_use_are_refused(learner):
    with pytest.raises(ValueError, match="pass --normalisation batch"):
        dataclasses.replace(find(NAME, learner, "house"), normalisation=Normalisation.RUNNING)


def test_a_shape_that_a_mixture_would_not_use_is_refused():
    with pytest.raises(ValueError, match="trains on a mixture of shapes"):
        dataclasses.replace(find(NAME, "r2d2", "original"), train=EpisodeShape(5, 1, 2))


def test_a_network_that_ends_in_logits_has_no_output_to_scale():
    experiment = find(NAME, "cavia", "house")
    scaled = dataclasses.replace(experiment, backbone=dataclasses.replace(experiment.backbone, scale_output=True))
    with pytest.raises(ValueError, match=r"Leave out --backbone\.scale-output"):
        scaled.build(0)
