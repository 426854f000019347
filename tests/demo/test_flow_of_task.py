import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.demo.flow_of_task import TIMES, flow_of_task
from comln.episode import Examples
from comln.flow.integrator import Integrator
from comln.learners import COMLN, InitialHead
from comln.losses import CrossEntropy

WAYS = 5
CLASSES = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 4])
# FEW is the size of the server tests' embeddings, so that compiled code is shared; MANY exceeds the room for examples.
FEW, MANY = 16, 40


def embeddings(features: int) -> tuple[np.ndarray, np.ndarray]:
    """Return those of the support and of some queries."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(len(CLASSES), features)) * 0.3, rng.normal(size=(4, features)) * 0.3


SUPPORT, QUERIES = embeddings(FEW)


def learner(features: int = FEW, **settings) -> COMLN:
    return COMLN.init(Identity(features), ways=WAYS, key=jax.random.key(0), initial_horizon=20.0, **settings)


@pytest.mark.parametrize(
    ("features", "settings"),
    [
        (FEW, {}),
        (FEW, {"initial_head": InitialHead.PROTOTYPES, "support_smoothing": 0.1}),
        pytest.param(MANY, {"proximal": 0.01}, marks=pytest.mark.slow),
    ],
    ids=["learned start", "prototypes and smoothed labels", "more features than examples, and a proximal weight"],
)
def test_what_is_shown_at_a_time_is_what_the_learner_adapts_to(features, settings):
    """Although the task is filled up with examples and classes that take no part."""
    model, (support, queries) = learner(features, **settings), embeddings(features)
    flow = flow_of_task(model, support, CLASSES, WAYS, queries)
    assert flow.horizon == float(model.horizon) and len(flow.times) == TIMES
    assert flow.times[0] == 0 and np.all(np.diff(flow.times) > 0) and flow.times[-1] >= 10 * flow.horizon
    examples = Examples(jnp.asarray(support), jnp.eye(WAYS)[CLASSES], jnp.ones(len(CLASSES)))
    for place in (100, int(np.flatnonzero(flow.times == flow.horizon)[0]), 200, TIMES - 1):
        head, info = model.adapt_for(jnp.asarray(flow.times[place]), examples)
        assert bool(info.ok)
        logits = head(examples.inputs)
        np.testing.assert_allclose(flow.query_logits[place], head(jnp.asarray(queries)), atol=1e-4)
        own = np.asarray(jax.nn.softmax(logits))[np.arange(len(CLASSES)), CLASSES]
        np.testing.assert_allclose(flow.support_probabilities[place], own, atol=1e-4)
        np.testing.assert_allclose(flow.norm[place], jnp.linalg.norm(head.weights), rtol=1e-4)
        if model.support_smoothing == 0:
            loss = jnp.mean(CrossEntropy().value(logits, examples.labels))
            np.testing.assert_allclose(flow.support_loss[place], loss, atol=1e-4)


def test_a_task_of_other_ways_than_learned_starts_from_zero():
    flow = flow_of_task(learner(), SUPPORT[:4], np.array([0, 0, 1, 1]), 2, QUERIES)
    assert flow.norm[0] == 0 and np.all(flow.query_logits[0] == 0)
    np.testing.assert_allclose(flow.support_loss[0], np.log(2), rtol=1e-6)
    assert np.all(np.diff(flow.support_loss) < 0)


def test_without_queries_there_is_still_a_flow():
    flow = flow_of_task(learner(), SUPPORT, CLASSES, WAYS, QUERIES[:0])
    assert flow.query_logits.shape == (TIMES, 0, WAYS) and flow.support_loss[-1] < flow.support_loss[0]


@pytest.mark.slow
def test_a_flow_that_cannot_be_followed_beyond_its_horizon_is_shown_up_to_it():
    """With one step less than it takes, the flow comes to T, but not ten times as far."""
    support, classes = np.repeat(SUPPORT[:3], 2, axis=0), np.array([0, 1, 1, 2, 2, 0])
    whole = flow_of_task(learner(), support, classes, WAYS, QUERIES)
    short = flow_of_task(learner(integrator=Integrator(max_steps=whole.steps - 1)), support, classes, WAYS, QUERIES)
    assert short.times[-1] == short.horizon and len(short.times) == TIMES
    place = int(np.flatnonzero(whole.times == whole.horizon)[0])
    np.testing.assert_allclose(short.query_logits[-1], whole.query_logits[place], atol=1e-4)


def test_a_horizon_that_ran_away_is_told():
    lost = eqx.tree_at(lambda model: model.log_horizon, learner(), jnp.asarray(1000.0))
    with pytest.raises(ValueError, match="The learned T is inf"):
        flow_of_task(lost, SUPPORT, CLASSES, WAYS, QUERIES)
