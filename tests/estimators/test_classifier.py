import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from comln import COMLN, Examples, Integrator, gradient_flow
from comln.backbones import Identity
from comln.estimators import DEFAULT_HORIZON, FlowFailed, GradientFlowClassifier
from comln.estimators.coordinates import Coordinates
from comln.estimators.open_ways import CLOSED, OpenWaysCrossEntropy
from comln.estimators.padded_flow import Settings, follow_padded
from comln.estimators.padded_flow import _program as program
from comln.estimators.padded_problem import PaddedProblem, padded_problem
from comln.learners import ProtoNet
from comln.learners.comln import InitialHead
from comln.learners.task_horizon import TaskHorizon
from comln.recipes.glyphs_5way_1shot import EXPERIMENT
from comln.run import Run
from comln.selection import Selection

NAMES = np.array(["ant", "bee", "cat", "dog", "eel"])


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def data(ways=3, examples=40, features=6, seed=0):
    """Return overlapping classes of unequal sizes."""
    rng = np.random.default_rng(seed)
    classes = np.concatenate([np.arange(ways), rng.integers(0, ways, examples - ways)])
    X = 2 * rng.normal(size=(ways, features))[classes] + 3 * rng.normal(size=(examples, features)) + 1
    return X, NAMES[classes], rng


def scaled(X):
    return (X - X.mean(0)) / np.sqrt(np.mean(np.sum((X - X.mean(0)) ** 2, axis=1)))


# What is fitted


@pytest.mark.parametrize(("ways", "features"), [(2, 60), slow(4, 6), slow(2, 6), slow(4, 60)])
def test_the_limit_is_logistic_regression(ways, features):
    X, y, rng = data(ways=ways, features=features)
    weights = rng.uniform(0.5, 2.0, len(X))
    model = GradientFlowClassifier(np.inf, proximal=0.05, fit_intercept=False, standardize=False).fit(X, y, weights)
    strength = (2 if ways == 2 else 1) / (0.05 * weights.sum())
    reference = LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=5000).fit(X, y, weights)
    assert model.coef_.shape == reference.coef_.shape and model.intercept_.tolist() == [0.0] * len(model.intercept_)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X), reference.decision_function(X), atol=1e-5)
    assert model.predict(X).tolist() == reference.predict(X).tolist()


def test_the_intercept_is_the_weight_of_a_feature_that_is_one():
    X, y, _ = data()
    model = GradientFlowClassifier(np.inf, proximal=0.05).fit(X, y)
    with_one = np.c_[scaled(X), np.ones(len(X))]
    reference = LogisticRegression(C=1 / (0.05 * len(X)), fit_intercept=False, tol=1e-10, max_iter=5000)
    np.testing.assert_allclose(model.predict_proba(X), reference.fit(with_one, y).predict_proba(with_one), atol=1e-6)


@pytest.mark.parametrize(
    ("examples", "features", "proximal"), [(10, 60, 0.0), slow(10, 60, 0.02), slow(40, 6, 0.0), slow(40, 6, 0.02)]
)
def test_the_head_is_where_the_flow_is_at_the_horizon(examples, features, proximal):
    X, y, _ = data(examples=examples, features=features)
    model = GradientFlowClassifier(30, proximal=proximal, tol=1e-9, max_iter=100_000).fit(X, y)
    with_one = jnp.asarray(np.c_[scaled(X), np.ones(len(X))])
    labels = jnp.asarray((y[:, None] == model.classes_).astype(float))
    weights, _ = gradient_flow(
        jnp.zeros((3, features + 1)), with_one, labels, 30.0, proximal=proximal, integrator=Integrator(1e-9, 1e-9)
    )
    np.testing.assert_allclose(model.decision_function(X), with_one @ weights.T, atol=1e-6)
    assert model.horizon_ == 30 and model.n_iter_ > 10


@pytest.mark.float32
def test_default_settings_err_little():
    X, y, _ = data(examples=20, features=30)
    loose, tight = (GradientFlowClassifier(tol=tol).fit(X, y) for tol in (1e-3, 1e-7))
    assert loose.coef_.dtype == np.float64
    np.testing.assert_allclose(loose.decision_function(X), tight.decision_function(X), atol=3e-2)
    single = GradientFlowClassifier().fit(X.astype(np.float32), y)
    assert single.coef_.dtype == single.predict_proba(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(single.decision_function(X), tight.decision_function(X), atol=3e-2)


@pytest.mark.parametrize("features", [4, 40])
def test_twice_the_weight_is_twice_the_example_and_none_is_none(features):
    X, y, rng = data(examples=20, features=features)
    count = rng.integers(0, 4, len(X))
    weighted = GradientFlowClassifier().fit(X, y, count)
    repeated = GradientFlowClassifier().fit(X.repeat(count, axis=0), y.repeat(count))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-8, atol=1e-10)


def test_class_weights_multiply_those_of_the_examples():
    X, y, _ = data()
    by_hand = np.where(y == "ant", 3.0, 1.0)
    one = GradientFlowClassifier(class_weight={"ant": 3.0, "bee": 1.0, "cat": 1.0}).fit(X, y)
    np.testing.assert_allclose(one.coef_, GradientFlowClassifier().fit(X, y, by_hand).coef_, rtol=1e-12)
    names, classes = np.unique(y, return_inverse=True)
    balanced = len(y) / (len(names) * np.bincount(classes))[classes]
    other = GradientFlowClassifier(class_weight="balanced").fit(X, y)
    np.testing.assert_allclose(other.coef_, GradientFlowClassifier().fit(X, y, balanced).coef_, rtol=1e-12)


def test_units_of_the_features_do_not_matter():
    X, y, _ = data()
    one, other = (GradientFlowClassifier().fit(unit * X, y) for unit in (1.0, 1e-6))
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(1e-6 * X), rtol=1e-9)
    raw = GradientFlowClassifier(standardize=False, fit_intercept=False).fit(X, y)
    assert raw.horizon_ == pytest.approx(DEFAULT_HORIZON / np.mean(np.sum(X**2, axis=1)))


@pytest.mark.parametrize("unit", [1e-200, 1e200])
@pytest.mark.parametrize("features", [4, 60])
def test_units_whose_squares_overflow_or_vanish_do_not_matter(unit, features):
    X, y, _ = data(examples=20, features=features)
    one, other = GradientFlowClassifier().fit(X, y), GradientFlowClassifier().fit(unit * X, y)
    assert other.horizon_ == pytest.approx(one.horizon_)
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(unit * X), rtol=1e-9)


def test_examples_that_are_all_the_same_teach_only_how_common_classes_are():
    X, y = np.full((40, 6), 0.1), np.array(["ant"] * 30 + ["bee"] * 10)
    model = GradientFlowClassifier(1e4).fit(X, y)
    assert not model.coef_.any()
    np.testing.assert_allclose(model.predict_proba(X[:1] + 1), [[0.75, 0.25]], atol=1e-2)


@pytest.mark.float32
@pytest.mark.parametrize("unit", [1e-300, 1e300])
def test_only_ratios_of_weights_matter(unit):
    X, y, rng = data(examples=20)
    weights = rng.uniform(0.5, 2.0, 20)
    for features in (X, X.astype(np.float32)):
        one, other = (GradientFlowClassifier().fit(features, y, scale * weights) for scale in (1.0, unit))
        np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-4, atol=1e-6)


def test_a_class_without_weight_does_not_count_for_balance():
    X, y, _ = data(examples=30)
    present = y != "bee"
    weighted = GradientFlowClassifier(class_weight="balanced").fit(X, y, present)
    without = GradientFlowClassifier(class_weight="balanced").fit(X[present], y[present])
    ant, bee, cat = weighted.decision_function(X).T
    assert weighted.classes_.tolist() == ["ant", "bee", "cat"] and np.all(bee < np.maximum(ant, cat))
    assert without.classes_.tolist() == ["ant", "cat"]
    assert np.mean(np.where(cat > ant, "cat", "ant") == without.predict(X)) == 1.0


def test_log_probabilities_are_finite_where_probabilities_vanish():
    for ways in (2, 3):
        X, y, _ = data(ways=ways, features=60)
        model = GradientFlowClassifier(1e4).fit(X, y)
        logits = 1e6 * X
        log_probabilities, probabilities = model.predict_log_proba(logits), model.predict_proba(logits)
        assert probabilities.min() == 0.0 and np.all(np.isfinite(log_probabilities))
        np.testing.assert_allclose(np.exp(log_probabilities), probabilities, atol=1e-12)


# Padding


@pytest.mark.parametrize(
    "loss_settings", [{}, slow({"proximal": True}), slow({"proximal": True, "infinite": True})], ids=str
)
def test_padding_changes_nothing_beyond_rounding(loss_settings):
    X, y, rng = data(ways=3, examples=16, features=8)
    labels, start = (y[:, None] == np.unique(y)).astype(float), rng.normal(size=(3, 8))
    weights = rng.uniform(0.5, 2.0, 16)
    settings = Settings(OpenWaysCrossEntropy(), 1e-4, 10_000, **loss_settings)
    proximal = 0.1 if "proximal" in loss_settings else 0.0
    tight = PaddedProblem(start, scaled(X), labels, weights)

    def wide(array, rows, columns, fill=0.0):
        result = np.full((rows, columns), fill)
        result[: array.shape[0], : array.shape[1]] = array
        return result

    loose = PaddedProblem(
        wide(start, 7, 12), wide(scaled(X), 29, 12), wide(labels, 29, 7), wide(weights[:, None], 29, 1)[:, 0]
    )
    loose.labels[:, 3:] = CLOSED
    (exact, steps), (padded, padded_steps) = (follow_padded(p, 500.0, proximal, settings) for p in (tight, loose))
    assert steps == padded_steps > 3
    np.testing.assert_allclose(padded[:3, :8], exact, rtol=1e-10, atol=1e-12)
    assert not padded[3:].any() and not padded[:, 8:].any()


def test_problems_of_about_one_size_share_compiled_code():
    settings = Settings(OpenWaysCrossEntropy(), 1e-4, 10_000)
    for ways, examples, features in ((3, 17, 3), (4, 22, 100), (2, 19, 12)):
        X, y, _ = data(ways=ways, examples=examples, features=features)
        GradientFlowClassifier(5.0).fit(X, y)
        compiled = program(settings)._cache_size()  # pyright: ignore[reportFunctionMemberAccess]  # of a jitted function
        X, y, _ = data(ways=ways, examples=examples + 1, features=features)
        GradientFlowClassifier(7.0).fit(X, y)
        assert program(settings)._cache_size() == compiled  # pyright: ignore[reportFunctionMemberAccess]


def test_more_features_than_examples_do_not_enlarge_the_problem():
    X, y, _ = data(examples=10, features=5000)
    model = GradientFlowClassifier().fit(X, y)
    assert model.coef_.shape == (3, 5000)
    problem = padded_problem(np.zeros((10, 9)), np.zeros((10, 3)), np.ones(10), None, True, CLOSED, X.dtype)
    assert problem.examples.shape == (16, 10)


def test_many_examples_are_not_turned_where_that_takes_longer_than_the_flow():
    X, y, _ = data(ways=3, examples=170, features=200)
    model = GradientFlowClassifier(30, tol=1e-6).fit(X, y)
    more = GradientFlowClassifier(30, tol=1e-6).fit(np.c_[X, np.zeros((170, 300))], y)
    shapes = [
        Coordinates.of(X, np.ones(170), centred=True, scaled=True, always_turned=flag).examples.shape
        for flag in (False, True)
    ]
    assert shapes == [(170, 200), (170, 169)]
    np.testing.assert_allclose(more.coef_[:, :200], model.coef_, atol=1e-4 * np.abs(model.coef_).max())


# Where it begins


def run_of(learner):
    return Run(EXPERIMENT, 0, learner, None, 1, 1, Selection(), "")


def test_a_run_is_followed_as_the_run_itself_would():
    X, y, _ = data(ways=5, examples=25, features=8)
    learner = COMLN.init(Identity(8), 5, jax.random.key(0), initial_horizon=3.0)
    labels = jnp.asarray((y[:, None] == NAMES).astype(float))
    head, _ = eqx.tree_at(lambda learner: learner.integrator, learner, Integrator(1e-9, 1e-9)).adapt(
        Examples(jnp.asarray(X), labels, jnp.ones(25))
    )
    for standardize in (True, False):
        model = GradientFlowClassifier(
            initial=run_of(learner), fit_intercept=False, standardize=standardize, tol=1e-8, max_iter=10**6
        ).fit(X, y)
        np.testing.assert_allclose(model.decision_function(X), head(jnp.asarray(X)), atol=1e-5)
    assert model.horizon_ == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(proximal=0.1), "pass proximal=0.1 and standardize=False"),
        (dict(support_smoothing=0.1), "smooths the labels of its support"),
        (dict(task_horizon=TaskHorizon.init(jax.random.key(0))), "has a horizon for each task"),
    ],
)
def test_what_a_run_does_and_the_estimator_does_not_is_said(settings, message):
    X, y, _ = data(ways=5, examples=25, features=8)
    learner = COMLN.init(Identity(8), 5, jax.random.key(0), **settings)
    with pytest.warns(UserWarning, match=message):
        GradientFlowClassifier(initial=run_of(learner)).fit(X, y)


def test_a_run_with_a_proximal_term_is_followed_with_that_term():
    X, y, _ = data(ways=5, examples=25, features=8)
    learner = COMLN.init(Identity(8), 5, jax.random.key(0), initial_horizon=3.0, proximal=0.3)
    labels = jnp.asarray((y[:, None] == NAMES).astype(float))
    head, _ = learner.adapt(Examples(jnp.asarray(X), labels, jnp.ones(25)))
    model = GradientFlowClassifier(
        proximal=0.3, initial=run_of(learner), fit_intercept=False, standardize=False, tol=1e-6
    )
    np.testing.assert_allclose(model.fit(X, y).decision_function(X), head(jnp.asarray(X)), atol=1e-2)


def test_a_start_that_is_sure_and_wrong_is_left():
    """No probability is anything but zero or one at first, so that nothing says how fast the flow can be."""
    X, y, _ = data(examples=30)
    X = np.abs(X) + 1
    start = np.zeros((3, 6))
    start[0] = 200
    model = GradientFlowClassifier(1e5, initial=start).fit(X, y)
    learned = GradientFlowClassifier(1e5).fit(X, y)
    assert model.n_iter_ < 1000
    np.testing.assert_allclose(model.score(X, y), learned.score(X, y), atol=0.1)


def test_arrays_of_jax_are_taken_as_others():
    X, y, rng = data(examples=20)
    start = rng.normal(size=(3, 6))
    one = GradientFlowClassifier(10, initial=start).fit(X, y)
    other = GradientFlowClassifier(10, initial=jnp.asarray(start)).fit(jnp.asarray(X), y)
    np.testing.assert_array_equal(one.coef_, other.coef_)


def test_a_run_of_other_ways_starts_from_zero_and_says_so():
    X, y, _ = data(ways=3, features=8)
    learner = COMLN.init(Identity(8), 5, jax.random.key(0))
    with pytest.warns(UserWarning, match="for 3 ways the flow starts from zero"):
        model = GradientFlowClassifier(10, initial=run_of(learner)).fit(X, y)
    np.testing.assert_array_equal(model.coef_, GradientFlowClassifier(10).fit(X, y).coef_)


@pytest.mark.parametrize(("ways", "features"), [(2, 60), (3, 6)])
def test_at_time_zero_the_head_is_the_one_it_began_with(ways, features):
    X, y, rng = data(ways=ways, features=features)
    start = rng.normal(size=(1 if ways == 2 else ways, features))
    model = GradientFlowClassifier(0, initial=start).fit(X, y)
    np.testing.assert_allclose(model.coef_, start, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, 0, atol=1e-9)


# What cannot be done


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(horizon=-1.0), ValueError, "`horizon` must be at least 0"),
        (dict(horizon=np.nan), ValueError, "`horizon` must be at least 0"),
        (dict(proximal=-0.1), ValueError, "`proximal` must be at least 0"),
        (dict(tol=0.0), ValueError, "`tol` must be positive"),
        (dict(initial=np.zeros((3, 5))), ValueError, "a row for each of 3 classes and a column for each of 6"),
        (dict(initial=np.full((3, 6), np.nan)), ValueError, "must hold finite numbers"),
        (dict(initial=7), ValueError, "got int"),
        (dict(class_weight={"ant": -1.0}), ValueError, "`class_weight` must hold finite numbers, at least 0"),
        (dict(class_weight={"ant": np.nan}), ValueError, "`class_weight` must hold finite numbers, at least 0"),
        (dict(class_weight={"ant": 0, "bee": 0, "cat": 0}), ValueError, "No example has a positive weight"),
        (dict(class_weight="even"), ValueError, 'must be a dictionary, "balanced" or None'),
        (dict(initial="no/such/folder"), ValueError, "holds no run"),
        (dict(horizon=1e4, max_iter=5), FlowFailed, "did not reach horizon=10000 with max_iter=5"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, error, message):
    X, y, _ = data()
    with pytest.raises(error, match=message):
        GradientFlowClassifier(**settings).fit(X, y)


def test_no_limit_and_numbers_too_large_are_refused():
    X = np.array([[-1.0], [1.0]])
    with pytest.raises(FlowFailed, match="weights grow for ever"):
        GradientFlowClassifier(np.inf).fit(X, [0, 1])
    with pytest.raises(FlowFailed, match="squares overflow"):
        GradientFlowClassifier(1.0, standardize=False).fit(1e200 * X, [0, 1])


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (
            COMLN.init(Identity(8), 5, jax.random.key(0), initial_head=InitialHead.PROTOTYPES),
            "learned weights or zero",
        ),
        (COMLN.init(Identity(9), 5, jax.random.key(0)), "embeddings of 9 numbers, but X has 8"),
        (ProtoNet(Identity(8)), "got one of ProtoNet"),
    ],
)
def test_a_run_without_such_a_head_is_refused(learner, message):
    X, y, _ = data(ways=5, features=8)
    with pytest.raises(ValueError, match=message):
        GradientFlowClassifier(initial=run_of(learner)).fit(X, y)
