import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

from comln import COMLN, gradient_flow_path
from comln.backbones import Identity
from comln.estimators import DEFAULT_HORIZON, GradientFlowClassifier, GradientFlowClassifierCV
from comln.estimators.classifier_cv import GRID
from comln.estimators.folds import stratified_folds
from comln.estimators.path_scores import PATIENCE, PathScores
from tests.estimators.test_classifier import data, run_of


def scores_by_kept_paths(X, y, folds, horizons):
    """Return log-likelihood and accuracy of each fold at each horizon, from `gradient_flow_path`, fold after fold."""
    names = np.unique(y)
    results = []
    for train, test in folds:
        centre = X[train].mean(0)
        scale = np.sqrt(np.mean(np.sum((X[train] - centre) ** 2, axis=1)))
        with_one = jnp.asarray(np.c_[(X - centre) / scale, np.ones(len(X))])
        labels = jnp.asarray((y[:, None] == names).astype(float))
        start = jnp.zeros((len(names), with_one.shape[1]))
        path = gradient_flow_path(start, with_one[train], labels[train], float(horizons[-1]))
        logits = np.asarray(path.logits_at(with_one[test], jnp.asarray(horizons)))
        labels = np.asarray(labels)
        right = np.argmax(logits, axis=2) == np.argmax(labels[test], axis=1)
        logits = logits - logits.max(axis=2, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        results.append((np.mean(np.sum(log_probabilities * labels[test], axis=2), axis=1), right.mean(axis=1)))
    return (np.stack(scores) for scores in zip(*results, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("features", [5, 50])
def test_scores_are_those_of_the_kept_path_of_each_fold(features):
    X, y, _ = data(examples=40, features=features)
    folds = list(StratifiedKFold(3).split(X, y))
    horizons = np.geomspace(0.5, 60, 6)
    likelihood, accuracy = scores_by_kept_paths(X, y, folds, horizons)
    model = GradientFlowClassifierCV(cv=folds, horizons=horizons).fit(X, y)
    reached = len(model.horizons_)
    assert model.scores_path_.shape == (3, reached) and reached >= 4
    np.testing.assert_allclose(model.scores_path_, likelihood[:, :reached], atol=2e-2)
    best = np.argmax(likelihood.mean(axis=0))
    assert model.horizon_ == horizons[best]
    plain = GradientFlowClassifier(model.horizon_).fit(X, y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    by_accuracy = GradientFlowClassifierCV(cv=folds, horizons=horizons, scoring="accuracy").fit(X, y)
    reached = len(by_accuracy.horizons_)
    np.testing.assert_allclose(by_accuracy.scores_path_, accuracy[:, :reached], atol=1 / 13)


def mislabelled():
    """Return examples of which some are labelled wrongly, so that a long flow learns nonsense."""
    X, y, rng = data(examples=40, features=50)
    wrong = rng.permutation(40)[:8]
    return X, np.where(np.isin(np.arange(40), wrong), np.roll(y, 1), y)


def test_the_path_ends_when_the_score_falls():
    X, y = mislabelled()
    model = GradientFlowClassifierCV().fit(X, y)
    mean = model.scores_path_.mean(axis=0)
    assert len(mean) < len(GRID) and np.argmax(mean) == len(mean) - 1 - PATIENCE
    np.testing.assert_allclose(model.horizons_, GRID[: len(mean)], rtol=1e-9)


def test_one_standard_error_is_a_smaller_horizon_that_scores_as_well():
    X, y = mislabelled()
    best, modest = (GradientFlowClassifierCV(one_standard_error=flag).fit(X, y) for flag in (False, True))
    scores = best.scores_path_
    np.testing.assert_array_equal(scores, modest.scores_path_)
    error = scores[:, np.argmax(scores.mean(0))].std(ddof=1) / np.sqrt(5)
    within = scores.mean(0) >= scores.mean(0).max() - error
    assert modest.horizon_ == best.horizons_[np.argmax(within)] < best.horizon_


def test_folds_are_even_and_hold_out_no_only_member():
    classes = np.repeat(np.arange(4), [10, 7, 2, 1])
    folds = stratified_folds(classes, 5)
    assert folds[-1] == -1
    for label, count in ((0, 10), (1, 7), (2, 2)):
        held = np.bincount(folds[classes == label], minlength=5)
        assert held.sum() == count and held.max() - held.min() <= 1
    sizes = np.bincount(folds[:-1])
    assert sizes.max() - sizes.min() <= 1


def test_a_class_with_one_example_is_learned_but_not_judged():
    X, y, _ = data(ways=3, examples=30)
    X, y = np.r_[X, [[30.0] * 6]], np.r_[y, ["owl"]]
    with pytest.warns(UserWarning, match=r"take no part in the choice of the horizon: \['owl'\]"):
        model = GradientFlowClassifierCV().fit(X, y)
    assert model.predict([[30.0] * 6]).tolist() == ["owl"] and len(model.horizons_) > 0


def test_a_warning_does_not_name_hundreds_of_classes():
    X, y, _ = data(ways=3, examples=30)
    lonely = np.arange(100, 120).astype(str)
    with pytest.warns(UserWarning, match=r"'109'\] and 10 more\.$"):
        GradientFlowClassifierCV(horizons=[1.0]).fit(np.r_[X, X[:20]], np.r_[y, lonely])


def test_with_one_example_a_class_the_horizon_is_the_documented_one():
    X, y, _ = data(ways=5, examples=5)
    with pytest.warns(UserWarning, match="No class has two examples"):
        model = GradientFlowClassifierCV().fit(X, y)
    assert model.horizon_ == pytest.approx(DEFAULT_HORIZON)
    assert model.horizons_.shape == (0,) and model.scores_path_.shape == (0, 0)
    np.testing.assert_array_equal(model.coef_, GradientFlowClassifier().fit(X, y).coef_)


def test_with_one_example_a_class_the_horizon_is_that_of_the_run_it_begins_with():
    X, y, _ = data(ways=5, examples=5, features=8)
    run = run_of(COMLN.init(Identity(8), 5, jax.random.key(0), initial_horizon=7.0))
    with pytest.warns(UserWarning, match="what the run in `initial` has learned"):
        model = GradientFlowClassifierCV(initial=run, fit_intercept=False, standardize=False).fit(X, y)
    assert model.horizon_ == pytest.approx(7.0)
    plain = GradientFlowClassifier(initial=run, fit_intercept=False, standardize=False).fit(X, y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)


@pytest.mark.float32
@pytest.mark.parametrize("features", [5, 100])
def test_twice_the_weight_is_twice_the_example_within_a_fold(features):
    X, y, rng = data(examples=40, features=features)
    count, group = rng.integers(0, 4, 40), rng.integers(0, 3, 40)

    def fit(X, y, group, weights=None):
        folds = [(np.flatnonzero(group != k), np.flatnonzero(group == k)) for k in range(3)]
        return GradientFlowClassifierCV(cv=folds).fit(X, y, weights)

    weighted = fit(X, y, group, count)
    repeated = fit(X.repeat(count, axis=0), y.repeat(count), group.repeat(count))
    assert weighted.horizon_ == pytest.approx(repeated.horizon_, rel=1e-9)
    np.testing.assert_allclose(weighted.scores_path_, repeated.scores_path_, atol=1e-3)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-9)


def test_between_equal_accuracies_the_likelihood_decides():
    """Equal shares of right answers whose sums differ by rounding, as single precision makes them."""
    above = np.nextafter(np.float32(0.8), np.float32(1))
    accuracy = np.array([[0.5, 0.5], [above, 0.8], [0.8, 0.8]], np.float32)
    likelihood = np.array([[-1.0, -1.0], [-0.9, -0.9], [-0.3, -0.3]], np.float32)
    model = GradientFlowClassifierCV(scoring="accuracy")
    model.horizons_ = np.array([1.0, 2.0, 3.0])
    assert model._choose(PathScores(accuracy, likelihood, False)) == 3.0


def test_a_path_that_runs_out_of_steps_says_so():
    X, y, _ = data(examples=40)
    with pytest.warns(ConvergenceWarning, match=r"ended at horizon 1 of up to 1e\+12, for want of steps"):
        model = GradientFlowClassifierCV(horizons=[0.1, 1.0, 1e12], max_iter=30).fit(X, y)
    assert model.horizons_.tolist() == [0.1, 1.0]


@pytest.mark.slow
def test_threads_do_not_disturb_one_another():
    problems = [data(ways=2 + i % 3, examples=20 + i, features=4 + i % 5, seed=i)[:2] for i in range(8)]
    problems = [(X.astype(np.float32 if i % 2 else np.float64), y) for i, (X, y) in enumerate(problems)]

    def coefficients(problem):
        return GradientFlowClassifierCV(cv=2).fit(*problem).coef_

    alone = [coefficients(problem) for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(coefficients, problems * 3))
    for index, coef in enumerate(together):
        assert coef.dtype == problems[index % 8][0].dtype
        np.testing.assert_array_equal(coef, alone[index % 8])


def test_a_fitted_estimator_survives_pickling_and_its_clone_is_unfitted():
    X, y, _ = data()
    model = GradientFlowClassifierCV().fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    again: Any = clone(model)
    assert not hasattr(again, "coef_")
    np.testing.assert_array_equal(again.fit(X, y).coef_, model.coef_)


@pytest.mark.float32
def test_two_examples_a_class_are_enough_in_either_precision():
    X, y, _ = data(ways=5, examples=10, seed=1)
    y = np.array(["ant", "bee", "cat", "dog", "eel"]).repeat(2)
    for dtype in (np.float64, np.float32):
        model = GradientFlowClassifierCV().fit(X.astype(dtype), y)
        assert model.coef_.dtype == dtype and model.scores_path_.shape[0] == 5


def test_a_splitter_is_taken_as_it_is():
    X, y, rng = data(examples=30)
    groups = rng.integers(0, 4, 30)
    folds = list(LeaveOneGroupOut().split(X, y, groups))
    assert GradientFlowClassifierCV(cv=folds).fit(X, y).scores_path_.shape[0] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(scoring="f1"), '`scoring` must be "accuracy"'),
        (dict(cv=1), "`cv` must be at least 2 folds"),
        (dict(horizons=[1.0, 1.0]), "`horizons` must rise"),
        (dict(horizons=[1.0, np.inf]), "`horizons` must be a list of finite numbers"),
        (dict(horizons=[]), "`horizons` must be a list of finite numbers"),
        (dict(cv=[(np.arange(10), np.arange(0))]), "Every fold of `cv` must train on and hold out"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, message):
    X, y, _ = data()
    with pytest.raises(ValueError, match=message):
        GradientFlowClassifierCV(**settings).fit(X, y)
