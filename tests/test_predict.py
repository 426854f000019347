"""A run adapted to a user's own examples predicts what the learner itself would."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Normalisation
from comln.data.embedding_file import write_embeddings
from comln.data.input_form import InputForm
from comln.data.prepare import prepare
from comln.data.prepared import PreparedEmbeddings
from comln.data.source import content_hash
from comln.data.sources.embeddings import Embeddings
from comln.embed import RunNetwork, input_form
from comln.episode import Episode, Examples
from comln.learners import COMLN
from comln.predict import adapt, assess, predict
from comln.recipes import LEARNERS
from comln.run import RunError, export_run, load_run
from tests.own_runs import experiment, glyphs, untrained, untrained_on_embeddings

SHOTS = (1, 2, 3, 1, 4)
NAMES = ("owl", "cat", "bee", "ant", "dog")
RNG = np.random.default_rng(0)
POINTS, POINTS_OF = RNG.normal(size=(7, 3)), ["b", "a", "b", "c", "a", "b", "c"]
QUERY = RNG.normal(size=(6, 3))


def task(ways=5):
    """Return support, labels and query of glyphs, with unequal shots."""
    pictures = glyphs(ways, 6)[..., None]
    support = np.concatenate([pictures[c, : SHOTS[c]] for c in range(ways)])
    labels = [NAMES[c] for c in range(ways) for _ in range(SHOTS[c])]
    return support, labels, np.concatenate([pictures[c, 4:] for c in range(ways)])


@pytest.mark.float32
def test_a_prediction_is_that_of_the_learner_on_the_embedded_task():
    run = untrained(experiment())
    support, labels, query = task()
    result = predict(run, support, labels, query)
    assert result.classes == tuple(sorted(NAMES))

    def embed(images):
        numbers = jnp.asarray(images).astype(jnp.result_type(float)) / 255
        return run.learner.backbone(numbers, run.statistics, Normalisation.RUNNING)[0]

    one_hot = jnp.eye(5)[np.array([result.classes.index(label) for label in labels])]
    episode = Episode(
        Examples(embed(support), one_hot, jnp.array([11 / (5 * labels.count(label)) for label in labels])),
        Examples(embed(query), jnp.zeros((len(query), 5)), jnp.ones(len(query))),
    )
    expected = jax.nn.softmax(run.learner.classify(episode).logits)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_queries_do_not_depend_on_one_another_where_each_is_embedded_by_itself():
    classifier = adapt(untrained(experiment("protonet")), *task()[:2])
    query = task()[2]
    alone = np.concatenate([classifier.probabilities(query[i : i + 1]) for i in range(len(query))])
    np.testing.assert_allclose(classifier.probabilities(query), alone, rtol=1e-6)
    assert classifier.together == 0 and classifier.horizon is None
    assert dict(zip(classifier.classes, classifier.shots, strict=True)) == dict(zip(NAMES, SHOTS, strict=True))


@pytest.mark.slow
def test_methods_with_batch_statistics_see_the_queries_together_and_say_so():
    run = untrained(experiment("maml"))
    support, labels, query = task()
    classifier = adapt(run, support, labels, balanced=False)
    assert classifier.together == 75
    one_hot = jnp.eye(5)[np.array([classifier.classes.index(label) for label in labels])]
    numbers = (jnp.asarray(x).astype(jnp.result_type(float)) / 255 for x in (support, query))
    episode = Episode(
        Examples(next(numbers), one_hot, jnp.ones(len(labels))),
        Examples(next(numbers), jnp.zeros((len(query), 5)), jnp.ones(len(query))),
    )
    expected = jax.nn.softmax(eqx.filter_jit(run.experiment.at_test(run.learner).classify)(episode).logits)
    np.testing.assert_allclose(classifier.probabilities(query), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="MAML learned where to start for 5 ways, and has no start for 3"):
        adapt(run, *task(3)[:2])


def test_another_number_of_classes_starts_from_zero_and_says_so():
    classifier = adapt(untrained_on_embeddings(), POINTS, POINTS_OF)
    assert "W0 was learned for 5 ways; for 3 ways the flow starts from zero" in classifier.note
    assert classifier.horizon == pytest.approx(10.0)


def test_the_horizon_can_be_chosen():
    run = untrained_on_embeddings(ways=3)
    assert isinstance(run.learner, COMLN)
    still = predict(run, POINTS, POINTS_OF, QUERY, horizon=0.0)
    np.testing.assert_allclose(
        still.probabilities, jax.nn.softmax(QUERY @ np.asarray(run.learner.initial_weights).T), rtol=1e-6
    )
    learned, chosen = predict(run, POINTS, POINTS_OF, QUERY), predict(run, POINTS, POINTS_OF, QUERY, horizon=10.0)
    np.testing.assert_allclose(chosen.probabilities, learned.probabilities, rtol=1e-6)
    assert adapt(run, POINTS, POINTS_OF, horizon=2.5).horizon == pytest.approx(2.5)
    with pytest.raises(ValueError, match="A horizon is for runs of COMLN; this is one of ProtoNet"):
        adapt(untrained_on_embeddings("protonet"), POINTS, POINTS_OF, horizon=1.0)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="horizon must be at least 0"):
            adapt(run, POINTS, POINTS_OF, horizon=wrong)
    with pytest.raises(ValueError, match="The horizon is infinite"):
        adapt(run, POINTS[:3], ["a", "b", "c"], horizon=float("inf"))


def test_embeddings_are_normalised_as_in_training():
    run = untrained_on_embeddings("protonet", normalise="l2")
    one, other = (predict(run, POINTS, POINTS_OF, size * QUERY).probabilities for size in (1.0, 7.0))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    with pytest.raises(ValueError, match="query has an embedding that is zero"):
        predict(run, POINTS, POINTS_OF, 0 * QUERY)


def test_a_class_with_more_examples_weighs_no_more():
    """Three copies of one example and one of another weigh as much as two of each."""
    run = untrained_on_embeddings("metaoptnet-rr", ways=2)
    even = predict(run, POINTS[[0, 0, 1, 1]], ["a", "a", "b", "b"], QUERY).probabilities
    three = predict(run, POINTS[[0, 0, 0, 1]], ["a", "a", "a", "b"], QUERY).probabilities
    np.testing.assert_allclose(three, even, rtol=1e-6)
    heavier = predict(run, POINTS[[0, 0, 0, 1]], ["a", "a", "a", "b"], QUERY, balanced=False).probabilities
    assert np.abs(heavier - even).max() > 1e-3


def test_prototypes_of_points_known_by_hand():
    """Means 0 and 2 on a line; at 0.5 the squared distances are 1/4 and 9/4, so the odds are e to the 2."""
    run = untrained_on_embeddings("protonet", features=1, ways=2)
    points = np.array([[-1.0], [1.0], [2.0]])
    result = predict(run, points, ["near", "near", "far"], np.array([[0.5]]))
    assert result.classes == ("far", "near") and result.predicted == ("near",)
    np.testing.assert_allclose(result.probabilities, [[1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))]], rtol=1e-6)


@pytest.mark.parametrize(
    ("support", "labels", "message"),
    [
        (POINTS[:, :2], POINTS_OF, r"takes embeddings of shape \(3,\), but the support has the shape \(2,\)"),
        (POINTS, POINTS_OF[:-1], "7 support examples need as many labels, got 6"),
        (POINTS, ["a"] * 7, "1 class in the support. Give at least two"),
        (POINTS * np.inf, POINTS_OF, "numbers that are not finite"),
    ],
)
def test_examples_that_do_not_fit_are_refused(support, labels, message):
    with pytest.raises(ValueError, match=message):
        adapt(untrained_on_embeddings(), support, labels)


def test_images_must_be_bytes():
    support, labels, query = task()
    with pytest.raises(ValueError, match="Images must be uint8, from 0 to 255; the query is float64"):
        adapt(untrained(experiment("protonet")), support, labels).probabilities(query / 255)


def test_only_examples_of_known_class_are_assessed():
    assert assess(["a", "b"], ["a", "a"], [None, "c"]) is None
    result = assess(["a", "b"], ["a", "a", "b"], ["b", None, "b"])
    assert result is not None and result.count == 2 and result.accuracy == 0.5
    low, high = result.interval
    assert 0 < low < 0.5 < high < 1
    everything = assess(["a", "b"], ["a"] * 10, ["a"] * 10)
    assert everything is not None and everything.interval == pytest.approx((10 / (10 + 1.959964**2), 1.0))


def test_a_run_without_a_network_embeds_nothing():
    run = untrained_on_embeddings()
    with pytest.raises(RunError, match="its examples are embeddings already"):
        RunNetwork(run, input_form(run))
    whole = untrained(experiment("maml"))
    with pytest.raises(RunError, match="adapts a whole network to each task"):
        RunNetwork(whole, input_form(whole))


def test_what_a_run_expects_is_kept_in_its_file_or_stands_in_its_data(tmp_path):
    write_embeddings(tmp_path / "embeddings.npz", 3, True, iter([(POINTS, [""] * 7, POINTS_OF)]))
    manifest = prepare(
        Embeddings("l2"), "embeddings", tmp_path, tmp_path / "out", False, lambda split, done, total: None
    ).manifest
    assert manifest.notes["normalise"] == "l2"
    data = PreparedEmbeddings("embeddings", tmp_path / "out", features=3)
    run = untrained(experiment(data=data))
    assert run.inputs == InputForm((3,), normalise="l2")
    export_run(run, tmp_path / "run.safetensors")
    assert load_run(tmp_path / "run.safetensors").inputs == run.inputs
    old = dataclasses.replace(run, inputs=None, splits_hash=content_hash(data.load()))
    assert input_form(old) == run.inputs
    with pytest.raises(RunError, match="not the one that this run was trained on"):
        input_form(dataclasses.replace(old, splits_hash="another"))
    with pytest.raises(RunError, match=r"is not prepared.* add --data-folder"):
        input_form(old, tmp_path / "elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("ways", [5, 3])
def test_every_learner_adapts_to_unequal_shots_or_refuses_the_number_of_classes(name, ways):
    run = untrained(experiment(name))
    support, labels, query = task(ways)
    try:
        result = predict(run, support, labels, query)
    except ValueError as error:
        assert ways == 3 and "Train it on 3-way tasks." in str(error) and "\n" not in str(error)
        return
    assert result.probabilities.shape == (len(query), ways)
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, rtol=1e-5)
    # Not all alike: the support was heeded.
    assert np.ptp(result.probabilities, axis=0).max() > 1e-3
