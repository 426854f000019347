import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Normalisation
from comln.cli.train import _options
from comln.data.sampling import EpisodeShape
from comln.flow.integrator import Dopri5, Euler, Rodas4, Tsit5
from comln.learners import ANIL, COMLN, ConjugateGradients
from comln.recipes import LEARNERS, find
from comln.recipes.backbones import Conv4Config
from comln.recipes.experiment import Experiment
from comln.recipes.learners import ANILConfig, COMLNConfig, FlowMethod
from comln.recipes.protocols import HOUSE
from comln.run import converter
from tests.learners.tasks import examples

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
        ("comln", "euler_step", 0.0, "euler_step must be above 0"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(learner, field, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HOUSE[learner].learner, **{field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "at least 1 iteration, got 0"),
        ({"damping": -1.0}, "at least 0 and finite, got -1.0 and 0.0"),
        ({"shift": math.nan}, "at least 0 and finite, got 0.0 and nan"),
    ],
)
def test_a_linear_solver_out_of_its_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ConjugateGradients(**settings)


@pytest.mark.parametrize(
    ("name", "method"), [("tsit5", Tsit5()), ("dopri5", Dopri5()), ("rodas4", Rodas4()), ("euler", Euler(0.25))]
)
def test_the_flow_of_a_recipe_is_followed_as_it_is_told(name, method):
    words = ["--learner.integrator", name, "--learner.euler-step", "0.25", "--backbone.filters", "4"]
    learner = _options(words).experiment.build(0)
    assert isinstance(learner, COMLN) and learner.integrator.method == method


def test_euler_steps_of_a_recipe_are_the_steps_of_anil():
    """Four steps of 1/4 are a flow for a time of 1: what Table 4 compares with Runge and Kutta's methods."""
    network = {"backbone": Conv4Config(4)}
    flow = COMLNConfig(1.0, integrator=FlowMethod.EULER, euler_step=0.25)
    comln = dataclasses.replace(find(NAME, "comln", "house"), learner=flow, **network).build(0)
    anil = dataclasses.replace(find(NAME, "anil", "house"), learner=ANILConfig(0.25, 4), **network).build(0)
    assert isinstance(comln, COMLN) and isinstance(anil, ANIL) and comln.initial_weights is not None
    np.testing.assert_array_equal(comln.initial_weights, anil.initial_weights)
    task = examples(ways=5, shots=1, size=comln.backbone.embedding_size)
    expected = anil.adapt(task)[0].weights
    np.testing.assert_allclose(comln.adapt(task)[0].weights, expected, rtol=1e-12, atol=1e-12)
    assert float(jnp.abs(expected - anil.initial_weights).max()) > 1e-3


def test_a_run_from_before_there_was_a_choice_of_integrators_is_still_that_run():
    usual, other = COMLNConfig(), COMLNConfig(integrator=FlowMethod.EULER, euler_step=0.5)
    written = converter.unstructure(dataclasses.replace(find(NAME, "comln", "house"), learner=usual))["learner"]
    assert "integrator" not in written and "euler_step" not in written
    for config in (usual, other):
        experiment = dataclasses.replace(find(NAME, "comln", "house"), learner=config)
        assert converter.structure(converter.unstructure(experiment), Experiment) == experiment


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
