import jax
import numpy as np
import pytest

from comln.backbones import Normalisation
from comln.data.augmentation import AffineJitter
from comln.data.batches import make_batch, to_episodes
from comln.data.sampling import EpisodeShape, Sampler
from comln.evaluate import TASKS_AT_ONCE, Evaluation, embedded_tasks, evaluate
from tests.data.splits import stripes
from tests.training import learner, train

JITTER = AffineJitter(size=16, pixel=1.0, rotation=20.0, log_scale=0.2, shear=0.1, shift=2.0)
SHAPE = EpisodeShape(ways=3, shots=1, queries=4)


def test_the_interval_is_1_96_standard_errors():
    accuracies = np.random.default_rng(0).random(1000)
    result = Evaluation(accuracies, failed=0)
    assert result.ci95 == pytest.approx(1.96 * accuracies.std(ddof=1) / 1000**0.5, rel=1e-12)


@pytest.mark.parametrize("normalisation", list(Normalisation))
def test_evaluating_twice_gives_the_same_to_the_last_digit_and_training_helps(normalisation):
    unseen = Sampler(stripes(seed=1), SHAPE)
    state = train(steps=30, tasks_per_step=4)
    first, again = (
        evaluate(state.learner, state.statistics, unseen, 60, 0, normalisation).accuracies for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert len(first) == 60 and first.mean() > 0.6  # chance is 0.33


def test_the_tasks_do_not_depend_on_how_many_are_asked_for():
    model, unseen = learner(), Sampler(stripes(seed=1), SHAPE)
    statistics = model.backbone.initial_statistics()
    few = evaluate(model, statistics, unseen, 10, 0, Normalisation.RUNNING).accuracies
    many = evaluate(model, statistics, unseen, TASKS_AT_ONCE + 5, 0, Normalisation.RUNNING).accuracies
    np.testing.assert_allclose(few, many[:10], atol=1e-12)


def test_running_statistics_embed_each_example_by_itself_and_batch_statistics_each_task():
    model, unseen = learner(), Sampler(stripes(seed=1), SHAPE)
    statistics = model.backbone.initial_statistics()
    for normalisation in Normalisation:
        episodes = next(embedded_tasks(model.backbone, statistics, unseen, 3, 0, normalisation))
        drawn = unseen.draw(0, 1)
        images = unseen.split.examples[np.concatenate([drawn.support.ravel(), drawn.query.ravel()])] / 255
        expected, _ = model.backbone(jax.numpy.asarray(images), statistics, normalisation)
        np.testing.assert_allclose(episodes.support.inputs[1], expected[:3], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(episodes.query.inputs[1], expected[3:], rtol=1e-4, atol=1e-6)


def test_examples_that_are_varied_are_varied_in_evaluation_too():
    model, varied = learner(), Sampler(stripes(variants=1, augmentation=JITTER), SHAPE)
    statistics = model.backbone.initial_statistics()
    episodes = next(embedded_tasks(model.backbone, statistics, varied, 2, 0, Normalisation.RUNNING))
    images = to_episodes(make_batch(varied, 0, [1]), JITTER, jax.random.key(0)).query.inputs[0]
    expected, _ = model.backbone(images, statistics, Normalisation.RUNNING)
    np.testing.assert_allclose(episodes.query.inputs[1], expected, rtol=1e-4, atol=1e-6)


def test_one_task_has_no_interval():
    model = learner()
    with pytest.raises(ValueError, match="at least 2 tasks"):
        evaluate(model, model.backbone.initial_statistics(), Sampler(stripes(), SHAPE), 1, 0, Normalisation.RUNNING)
