import threading

import numpy as np
import pytest

from comln.data.batches import make_batch, to_episodes
from comln.data.prefetch import prefetch
from comln.data.sampling import EpisodeShape, Sampler
from tests.data.splits import STILL, stripes

SHAPES = [EpisodeShape(3, 1, 15), EpisodeShape(3, 5, 4), EpisodeShape(6, 12, 9), EpisodeShape(2, 4, 4)]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_support_and_query_share_no_group_and_no_example_repeats(shape):
    split = stripes()
    sampler = Sampler(split, shape)
    for index in range(20):
        episode = sampler.draw(seed=0, index=index)
        assert len(set(episode.classes)) == shape.ways
        for way in range(shape.ways):
            support, query = episode.support[way], episode.query[way]
            assert set(split.class_of[support]) == set(split.class_of[query]) == {episode.classes[way]}
            assert not set(split.group_of[support]) & set(split.group_of[query])
            assert len(set(support)) == shape.shots and len(set(query)) == shape.queries


def test_a_task_is_a_pure_function_of_seed_and_index():
    sampler = Sampler(stripes(), EpisodeShape(3, 2, 5))
    later = [sampler.draw(7, index) for index in (5, 3)]
    again = Sampler(stripes(), EpisodeShape(3, 2, 5))
    assert same(later[1], again.draw(7, 3)) and same(later[0], again.draw(7, 5))
    assert not same(again.draw(7, 3), again.draw(7, 4)) and not same(again.draw(7, 3), again.draw(8, 3))


def test_every_example_is_used_in_the_long_run_and_classes_evenly():
    split = stripes()
    sampler = Sampler(split, EpisodeShape(3, 1, 7))
    episodes = [sampler.draw(0, index) for index in range(300)]
    used = np.concatenate([np.append(e.support.ravel(), e.query.ravel()) for e in episodes])
    assert len(np.unique(used)) == len(split.examples)
    counts = np.bincount(np.concatenate([e.classes for e in episodes]), minlength=6)
    assert counts.min() > 100 and counts.max() < 200  # 150 expected, standard deviation 9


def test_with_many_originals_each_is_its_own_group_and_support_takes_only_its_shots():
    split = stripes(groups=30, variants=1)
    episode = Sampler(split, EpisodeShape(5, 5, 15)).draw(0, 0)
    assert len(np.unique(split.group_of[episode.query[0]])) == 15
    assert len(np.unique(split.group_of[episode.support[0]])) == 5


def test_single_originals_are_drawn_as_groups_of_one_are(monkeypatch):
    """There is a faster way for them, which must give the same tasks."""
    sampler = Sampler(stripes(groups=30, variants=1), EpisodeShape(5, 5, 15))
    fast = [sampler.draw(3, index) for index in range(5)]
    monkeypatch.setitem(vars(sampler), "_originals", [None] * 6)
    assert all(same(episode, sampler.draw(3, index)) for index, episode in enumerate(fast))


def test_augmented_examples_may_repeat_once_all_groups_are_used():
    sampler = Sampler(stripes(variants=1, augmentation=STILL), EpisodeShape(3, 10, 20))
    episode = sampler.draw(0, 0)
    assert len(np.unique(episode.support[0])) == 4 and len(np.unique(episode.query[0])) == 4


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (EpisodeShape(7, 1, 1), "7-way tasks need 7 classes, but this split has 6"),
        (EpisodeShape(3, 22, 1), "22 shots were asked for, but class 'class 0' can give at most 21"),
        (EpisodeShape(3, 1, 22), "22 queries were asked for, but class 'class 0' can give at most 21"),
    ],
    ids=str,
)
def test_a_shape_that_the_split_cannot_fill_is_refused_with_both_numbers(shape, message):
    with pytest.raises(ValueError, match=message):
        Sampler(stripes(groups=8, variants=3), shape)


@pytest.mark.parametrize("wrong", [{"ways": 1}, {"shots": 0}, {"queries": 0}])
def test_senseless_shapes_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least"):
        EpisodeShape(**{"ways": 5, "shots": 1, "queries": 15, **wrong})


def test_batches_label_classes_in_order_and_scale_bytes():
    import jax

    split = stripes()
    sampler = Sampler(split, EpisodeShape(3, 2, 4))
    batch = make_batch(sampler, seed=0, indices=range(4, 6))
    episodes = to_episodes(batch, None, jax.random.key(0))
    assert episodes.support.inputs.shape == (2, 6, 16, 16, 1) and episodes.query.labels.shape == (2, 12, 3)
    np.testing.assert_array_equal(episodes.support.labels[0].argmax(-1), [0, 0, 1, 1, 2, 2])
    expected = split.examples[sampler.draw(0, 5).query.ravel()] / 255
    np.testing.assert_allclose(episodes.query.inputs[1], expected, rtol=1e-6)


def test_an_augmented_task_depends_on_its_number_alone():
    import jax

    from comln.data.glyphs import JITTER

    split = stripes(augmentation=JITTER)
    sampler = Sampler(split, EpisodeShape(3, 2, 4))
    key = jax.random.key(0)
    pair = to_episodes(make_batch(sampler, 0, [8, 9]), JITTER, key)
    alone = to_episodes(make_batch(sampler, 0, [9]), JITTER, key)
    np.testing.assert_array_equal(pair.query.inputs[1], alone.query.inputs[0])
    assert not np.array_equal(pair.query.inputs[0], pair.query.inputs[1])


def test_prefetch_raises_where_the_item_would_have_been():
    def make(index):
        if index == 2:
            raise OSError("disk gone")
        return index

    items = prefetch(make, 0, 5)
    assert next(items) == 0 and next(items) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(items)


def test_closing_prefetch_early_ends_its_thread():
    before = set(threading.enumerate())
    items = prefetch(lambda index: index, 0, 1_000_000)
    assert next(items) == 0
    items.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "comln-prefetch"]
