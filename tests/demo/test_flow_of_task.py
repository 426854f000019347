import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.demo.flow_of_task import TIMES, flow_of_task
from comln.episode import Examples
from comln.learners import COMLN, InitialHead
from comln.losses import CrossEntropy

FEATURES, WAYS = 40, 3
CLASSES = np.array([0, 0, 1, 2, 2, 2])
rng = np.random.default_rng(0)
SUPPORT = rng.normal(size=(len(CLASSES), FEATURES)) * 0.3
QUERIES = rng.normal(size=(4, FEATURES)) * 0.3


def learner(**settings) -> COMLN:
    return COMLN.init(Identity(FEATURES), ways=WAYS, key=jax.random.key(0), initial_horizon=20.0, **settings)


def examples() -> Examples:
    return Examples(jnp.asarray(SUPPORT), jnp.eye(WAYS)[CLASSES], jnp.ones(len(CLASSES)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"initial_head": InitialHead.PROTOTYPES, "support_smoothing": 0.1}, {"proximal": 0.01}],
    ids=["learned start", "prototypes and smoothed labels", "proximal"],
)
def test_what_is_shown_at_a_time_is_what_the_learner_adapts_to(settings):
    """Although the task is filled up with examples and classes that take no part."""
    model = learner(**settings)
    flow = flow_of_task(model, SUPPORT, CLASSES, WAYS, QUERIES)
    assert flow.horizon == float(model.horizon) and len(flow.times) == TIMES
    assert flow.times[0] == 0 and np.all(np.diff(flow.times) > 0) and flow.times[-1] >= 10 * flow.horizon
    for place in (100, int(np.flatnonzero(flow.times == flow.horizon)[0]), 200, TIMES - 1):
        head, info = model.adapt_for(jnp.asarray(flow.times[place]), examples())
        assert bool(info.ok)
        logits = head(jnp.asarray(SUPPORT))
        np.testing.assert_allclose(flow.query_logits[place], head(jnp.asarray(QUERIES)), atol=1e-4)
        own = np.asarray(jax.nn.softmax(logits))[np.arange(len(CLASSES)), CLASSES]
        np.testing.assert_allclose(flow.support_probabilities[place], own, atol=1e-4)
        np.testing.assert_allclose(flow.norm[place], jnp.linalg.norm(head.weights), rtol=1e-4)
        if not settings:
            loss = jnp.mean(CrossEntropy().value(logits, examples().labels))
            np.testing.assert_allclose(flow.support_loss[place], loss, atol=1e-4)


def test_a_task_of_other_ways_than_learned_starts_from_zero():
    flow = flow_of_task(learner(), SUPPORT[:4], np.array([0, 0, 1, 1]), 2, QUERIES)
    assert flow.norm[0] == 0 and np.all(flow.query_logits[0] == 0)
    np.testing.assert_allclose(flow.support_loss[0], np.log(2), rtol=1e-6)
    assert np.all(np.diff(flow.support_loss) < 0)


def test_without_queries_there_is_still_a_flow():
    flow = flow_of_task(learner(), SUPPORT, CLASSES, WAYS, QUERIES[:0])
    assert flow.query_logits.shape == (TIMES, 0, WAYS) and flow.support_loss[-1] < flow.support_loss[0]


def test_a_flow_that_cannot_be_followed_beyond_its_horizon_is_shown_up_to_it():
    """Contradictory labels of large embeddings keep it stiff; in 70 steps it comes to T, but not ten times as far."""
    from comln.flow.integrator import Integrator

    support, classes = np.repeat(SUPPORT[:3], 2, axis=0), np.array([0, 1, 1, 2, 2, 0])
    whole = flow_of_task(learner(), support, classes, WAYS, QUERIES)
    short = flow_of_task(learner(integrator=Integrator(max_steps=whole.steps - 1)), support, classes, WAYS, QUERIES)
    assert short.times[-1] == short.horizon and len(short.times) == TIMES
    place = int(np.flatnonzero(whole.times == whole.horizon)[0])
    np.testing.assert_allclose(short.query_logits[-1], whole.query_logits[place], atol=1e-4)


def test_a_horizon_that_ran_away_is_told():
    model = COMLN.init(Identity(FEATURES), ways=WAYS, key=jax.random.key(0))
    lost = COMLN(model.backbone, model.initial_weights, jnp.asarray(1000.0))
    with pytest.raises(ValueError, match="The learned T is inf"):
        flow_of_task(lost, SUPPORT, CLASSES, WAYS, QUERIES)
