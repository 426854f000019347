import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import gradient_flow
from comln.backbones import Conv4
from comln.episode import Episode, Examples
from comln.heads import prototypes
from comln.learners import COMLN, InitialHead
from comln.learners.base import ParameterGroup
from tests.flow.problems import random_problem


def learner(**settings) -> COMLN:
    backbone = Conv4.init(16, 1, 8, jax.random.key(0))
    return COMLN.init(backbone, ways=3, key=jax.random.key(1), **{"initial_horizon": 5.0, **settings})


def support(**settings) -> Examples:
    problem = random_problem(ways=3, size=8, **settings)
    return Examples(problem.embeddings, problem.labels, jnp.ones(len(problem.labels)))


def test_the_head_is_where_the_flow_is_at_the_learned_horizon():
    model, examples = learner(), support()
    head, info = model.adapt(examples)
    assert model.initial_weights is not None
    expected, _ = gradient_flow(model.initial_weights, examples.inputs, examples.labels, 5.0)
    np.testing.assert_allclose(head.weights, expected, rtol=1e-12)
    assert bool(info.ok)


@pytest.mark.parametrize(
    ("initial_head", "start"),
    [
        (InitialHead.ZERO, lambda model, s: jnp.zeros((3, 8))),
        (InitialHead.PROTOTYPES, lambda model, s: prototypes(s.inputs, s.labels, s.mask)),
        (InitialHead.LEARNED, lambda model, s: model.initial_weights),
    ],
)
def test_at_a_tiny_horizon_the_head_is_where_it_starts(initial_head, start):
    model, examples = learner(initial_head=initial_head, initial_horizon=1e-12), support()
    head, _ = model.adapt(examples)
    np.testing.assert_allclose(head.weights, start(model, examples), atol=1e-10)


def test_with_another_number_of_ways_a_learned_start_is_zero_and_says_so():
    problem = random_problem(ways=4, support=8, size=8)
    model = eqx.tree_at(lambda m: m.log_horizon, learner(), jnp.log(1e-12))
    head, _ = model.adapt(Examples(problem.embeddings, problem.labels, jnp.ones(8)))
    np.testing.assert_allclose(head.weights, 0.0, atol=1e-10)
    assert "3 ways; for 4 ways" in model.ways_note(4) and model.ways_note(3) == ""
    assert learner(initial_head=InitialHead.ZERO).ways_note(4) == ""


def test_support_smoothing_spreads_labels_over_the_other_classes():
    model, examples = learner(support_smoothing=0.3), support()
    head, _ = model.adapt(examples)
    smoothed = 0.7 * examples.labels + 0.15 * (1 - examples.labels)
    assert model.initial_weights is not None
    expected, _ = gradient_flow(model.initial_weights, examples.inputs, smoothed, 5.0)
    np.testing.assert_allclose(head.weights, expected, rtol=1e-12)


@pytest.mark.float32
def test_objective_gives_a_gradient_to_the_start_and_to_the_horizon():
    problem = random_problem(ways=3, size=8)
    query = Examples(problem.query, problem.query_labels, jnp.ones(len(problem.query)))
    episode = Episode(support(), query)

    def loss(model):
        return model.objective(episode)[0]

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(learner())
    assert float(jnp.abs(gradient.log_horizon)) > 0 and float(jnp.abs(gradient.initial_weights).max()) > 0


def test_the_horizon_alone_is_in_its_own_group():
    groups = learner().parameter_groups()
    assert groups.log_horizon is ParameterGroup.HORIZON
    others = eqx.tree_at(lambda g: g.log_horizon, groups, ParameterGroup.NETWORK)
    assert set(jax.tree.leaves(others)) == {ParameterGroup.NETWORK}


@pytest.mark.parametrize("horizon", [0.0, -1.0, np.inf, np.nan])
def test_an_initial_horizon_must_be_positive_and_finite(horizon):
    with pytest.raises(ValueError, match="positive and finite"):
        learner(initial_horizon=horizon)
