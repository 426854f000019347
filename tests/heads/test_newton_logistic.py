import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from comln.heads import newton_logistic
from comln.heads.newton_logistic import newton_logistic_dual, newton_logistic_primal

SIZES = [(12, 5), (6, 20)]
FORMS = [newton_logistic_primal, newton_logistic_dual]


def task(support, feature, seed=0, way=3):
    rng = np.random.default_rng(seed)
    labels = np.eye(way)[np.arange(support) % way]
    return rng.normal(size=(support, feature)), labels, rng.uniform(0.2, 2.0, size=support)


def outlying(dtype):
    """Logits of a thousand at the minimum: of one outlier on the right side, and of a light one on the wrong side."""
    arrays = ([[1.0], [-1.0], [1000.0], [1000.0]], [[1.0], [0.0], [1.0], [0.0]], [1.0, 1.0, 1.0, 1e-4])
    return [jnp.asarray(array, dtype) for array in arrays]


run = jax.jit(newton_logistic, static_argnums=4)


def total(embeddings, labels, mask, regularisation, iterations, form):
    weights = form(embeddings, labels, mask, regularisation, iterations)
    return jnp.sum(jnp.sin(weights)), weights


gradients_and_weights = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True), static_argnums=(4, 5))


@pytest.mark.parametrize(("support", "feature"), SIZES)
@pytest.mark.parametrize("regularisation", [0.3, 50.0])
def test_the_weights_are_those_of_scikit_learn_one_against_the_rest_and_minimise(support, feature, regularisation):
    embeddings, labels, mask = task(support, feature)
    oracle = LogisticRegression(C=1 / regularisation, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    expected = [oracle.fit(embeddings, column, sample_weight=mask).coef_[0] for column in labels.T]
    weights = run(jnp.asarray(embeddings), jnp.asarray(labels), jnp.asarray(mask), regularisation, 10)
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-8)
    slope = (mask[:, None] * (expit(embeddings @ weights.T) - labels)).T @ embeddings + regularisation * weights
    assert np.max(np.abs(slope)) < 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_the_first_step_is_ridge_regression_to_the_signs_of_the_labels(form):
    embeddings, labels, mask = task(12, 5)
    expected = np.linalg.solve(
        embeddings.T @ (mask[:, None] * embeddings) + 4 * 0.3 * np.eye(5),
        embeddings.T @ (mask[:, None] * (4 * labels - 2)),
    )
    _, weights = gradients_and_weights(*(jnp.asarray(array) for array in (embeddings, labels, mask)), 0.3, 1, form)
    np.testing.assert_allclose(weights, expected.T, rtol=1e-10)


def test_no_step_leaves_zero():
    embeddings, labels, mask = (jnp.asarray(array) for array in task(6, 5))
    assert jnp.all(run(embeddings, labels, mask, 0.3, 0) == 0)


@pytest.mark.float32
@pytest.mark.parametrize(("support", "feature"), SIZES)
@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0])
def test_dual_form_equals_primal_form_and_so_do_their_gradients(support, feature, norm):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(support, feature))
    (primal, primal_weights), (dual, dual_weights) = (
        gradients_and_weights(norm * embeddings, labels, mask, 1.0, 5, form) for form in FORMS
    )
    tolerance = 1e-5 if embeddings.dtype == jnp.float32 else 1e-10
    for a, b in ((dual[0], primal[0]), (dual[1], primal[1]), (dual_weights, primal_weights)):
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.max(jnp.abs(b))), rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_exact_through_all_steps(form):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(6, 5))
    arguments = (embeddings, 0.8 * labels + 0.1, jnp.asarray(0.7))
    check_grads(jax.jit(lambda x, y, c: form(x, y, mask, c, 3)), arguments, order=1, modes=["rev"], eps=1e-5)


@pytest.mark.float32
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_saturated_logits_on_either_side_leave_value_and_gradient_right(form, dtype):
    with jax.enable_x64(True):
        expected, expected_weights = gradients_and_weights(*outlying(jnp.float64), 0.1, 20, newton_logistic_primal)
        gradients, weights = gradients_and_weights(*outlying(dtype), 0.1, 20, form)
    assert float(expected_weights[0, 0]) > 1
    tolerance = 1e-4 if dtype == jnp.float32 else 1e-9
    np.testing.assert_allclose(weights, expected_weights, rtol=tolerance)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.float32
@pytest.mark.parametrize("form", FORMS)
def test_rows_without_weight_have_no_effect_and_no_gradient(form):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(12, 5))
    padding = (jnp.full((2, 5), jnp.nan), jnp.full((2, 3), jnp.nan), jnp.zeros(2))
    padded = (jnp.concatenate(pair) for pair in zip((embeddings, labels, mask), padding, strict=True))
    gradients, weights = gradients_and_weights(*padded, 1.0, 5, form)
    expected, expected_weights = gradients_and_weights(embeddings, labels, mask, 1.0, 5, form)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-6)
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient[:12], wanted, rtol=1e-4, atol=1e-6)
        assert jnp.all(gradient[12:] == 0)


def test_a_batch_by_vmap_equals_a_loop_and_the_order_of_examples_does_not_count():
    def ten_steps(embeddings, labels, mask):
        return run(embeddings, labels, mask, 0.7, 10)

    tasks = [[jnp.asarray(array) for array in task(6, 20, seed)] for seed in range(3)]
    batch = jax.vmap(ten_steps)(*(jnp.stack(arrays) for arrays in zip(*tasks, strict=True)))
    for weights, arguments in zip(batch, tasks, strict=True):
        np.testing.assert_allclose(weights, ten_steps(*arguments), rtol=1e-9, atol=1e-12)
        backwards = ten_steps(*(array[::-1] for array in arguments))
        np.testing.assert_allclose(weights, backwards, rtol=1e-9, atol=1e-12)
