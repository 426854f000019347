import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from comln.estimators import GradientFlowRegressor


def data(examples=30, features=4, targets=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(examples, features)) * np.linspace(0.5, 3, features) + 5
    return X, X @ rng.normal(size=(features, targets)) + rng.normal(size=(examples, targets)), rng


@pytest.mark.parametrize("examples", [30, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_weights_are_the_closed_form_of_the_linear_flow(examples, fit_intercept):
    X, y, _ = data(examples=examples)
    horizon, proximal = 0.7, 0.2
    model = GradientFlowRegressor(horizon, proximal=proximal, fit_intercept=fit_intercept, standardize=False).fit(X, y)
    centre, middle = (X.mean(0), y.mean(0)) if fit_intercept else (0.0, 0.0)
    moved = X - centre
    rates, axes = np.linalg.eigh(moved.T @ moved / examples)
    share = -np.expm1(-(rates + proximal) * horizon) / (rates + proximal)
    expected = (axes * share) @ axes.T @ moved.T @ (y - middle) / examples
    np.testing.assert_allclose(model.coef_, expected.T, rtol=1e-9)
    np.testing.assert_allclose(model.predict(X), moved @ expected + middle, rtol=1e-9)


def test_without_end_it_is_ridge_regression_with_weights():
    X, y, rng = data()
    weights = rng.uniform(0.0, 2.0, len(X))
    model = GradientFlowRegressor(np.inf, proximal=0.3, standardize=False).fit(X, y, weights)
    ridge = Ridge(alpha=0.3 * weights.sum()).fit(X, y, weights)
    np.testing.assert_allclose(model.coef_, ridge.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.intercept_, ridge.intercept_, rtol=1e-9)


@pytest.mark.float32
@pytest.mark.parametrize("features", [4, 50])
def test_double_precision_is_kept_whatever_jax_is_set_to(features):
    X, y, _ = data(features=features, targets=1)
    model = GradientFlowRegressor(np.inf).fit(X, y[:, 0])
    centred = X - X.mean(0)
    expected = np.linalg.lstsq(centred, y[:, 0] - y.mean(), rcond=None)[0]
    assert model.coef_.dtype == np.float64 and model.coef_.shape == (features,)
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.float32
def test_single_precision_stays_single_precision():
    X, y, _ = data()
    model = GradientFlowRegressor(3.0).fit(X.astype(np.float32), y.astype(np.float32))
    assert model.coef_.dtype == np.float32 and model.predict(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(model.coef_, GradientFlowRegressor(3.0).fit(X, y).coef_, rtol=2e-3, atol=2e-4)


def test_units_of_the_features_do_not_matter():
    X, y, _ = data()
    one, other = (GradientFlowRegressor(5.0, proximal=0.1).fit(unit * X, y) for unit in (1.0, 1e6))
    np.testing.assert_allclose(one.predict(X), other.predict(1e6 * X), rtol=1e-9)


def test_the_flow_begins_where_it_is_told_to():
    X, y, rng = data(examples=3)
    start = rng.normal(size=(2, 4))
    np.testing.assert_allclose(GradientFlowRegressor(0, initial=start).fit(X, y).coef_, start, rtol=1e-9)
    later = GradientFlowRegressor(np.inf, initial=start).fit(X, y)
    np.testing.assert_allclose(later.predict(X), y, rtol=1e-6)
    # What the examples say nothing about stays as it was.
    unseen = np.linalg.svd(X - X.mean(0))[2][2:]
    np.testing.assert_allclose((later.coef_ - start) @ unseen.T, 0, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(horizon=-1.0), "`horizon` must be at least 0"),
        (dict(proximal=-1.0), "`proximal` must be at least 0"),
        (dict(initial=np.zeros((3, 4))), "a row for each of 2 targets"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(settings, message):
    X, y, _ = data()
    with pytest.raises(ValueError, match=message):
        GradientFlowRegressor(**settings).fit(X, y)


def test_the_setting_of_jax_is_left_alone():
    before = jax.config.read("jax_enable_x64")
    GradientFlowRegressor().fit(*data()[:2])
    assert jax.config.read("jax_enable_x64") == before
