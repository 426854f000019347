import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.linear_model import Ridge

from comln.heads import ridge
from comln.heads.ridge import ridge_dual, ridge_primal

SIZES = [(12, 5), (6, 20), (8, 8)]


def task(support, feature, seed=0, way=3):
    rng = np.random.default_rng(seed)
    labels = np.eye(way)[np.arange(support) % way]
    return rng.normal(size=(support, feature)), labels, rng.uniform(0.2, 2.0, size=support)


run = jax.jit(ridge)
run_primal, run_dual = jax.jit(ridge_primal), jax.jit(ridge_dual)


@pytest.mark.parametrize(("support", "feature"), SIZES)
def test_the_weights_are_those_of_scikit_learn(support, feature):
    embeddings, labels, mask = task(support, feature)
    oracle = Ridge(alpha=0.7, fit_intercept=False).fit(embeddings, labels, sample_weight=mask)
    weights = run(jnp.asarray(embeddings), jnp.asarray(labels), jnp.asarray(mask), 0.7)
    np.testing.assert_allclose(weights, oracle.coef_, rtol=1e-10, atol=1e-12)


@pytest.mark.float32
@pytest.mark.parametrize(("support", "feature"), SIZES)
@pytest.mark.parametrize("norm", [0.1, 1.0, 3.0])
def test_dual_form_equals_primal_form(support, feature, norm):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(support, feature))
    primal, dual = (form(norm * embeddings, labels, mask, 10.0) for form in (run_primal, run_dual))
    tolerance = (1e-5 if embeddings.dtype == jnp.float32 else 1e-10) * float(jnp.max(jnp.abs(primal)))
    np.testing.assert_allclose(dual, primal, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("support", "feature"), SIZES)
def test_the_smaller_form_is_taken(support, feature):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(support, feature))
    system = str(jax.make_jaxpr(ridge)(embeddings, labels, mask, 0.7))
    assert f"[{min(support, feature)},{min(support, feature)}]" in system
    assert support == feature or f"[{max(support, feature)},{max(support, feature)}]" not in system


@pytest.mark.parametrize("form", [run_primal, run_dual], ids=["primal", "dual"])
def test_the_gradient_is_exact_in_embeddings_labels_and_regularisation(form):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(6, 5))
    arguments = (embeddings, labels, jnp.asarray(0.7))
    check_grads(jax.jit(lambda x, y, c: form(x, y, mask, c)), arguments, order=1, modes=["rev"], eps=1e-5)


@pytest.mark.float32
@pytest.mark.parametrize("form", [ridge_primal, ridge_dual])
def test_rows_without_weight_have_no_effect_and_no_gradient(form):
    embeddings, labels, mask = (jnp.asarray(array) for array in task(6, 5))
    padding = (jnp.full((2, 5), jnp.nan), jnp.full((2, 3), jnp.nan), jnp.zeros(2))
    padded = [jnp.concatenate(pair) for pair in zip((embeddings, labels, mask), padding, strict=True)]

    @jax.jit
    def gradients(*arguments):
        return jax.grad(lambda *arguments: jnp.sum(jnp.sin(form(*arguments, 0.7))), argnums=(0, 1, 2))(*arguments)

    for gradient, expected in zip(gradients(*padded), gradients(embeddings, labels, mask), strict=True):
        np.testing.assert_allclose(gradient[:6], expected, rtol=1e-4, atol=1e-6)
        assert jnp.all(gradient[6:] == 0)


def test_a_weight_of_two_is_two_examples():
    embeddings, labels, mask = (jnp.asarray(array) for array in task(4, 7))
    repeated = (jnp.concatenate([array, array]) for array in (embeddings, labels, mask))
    np.testing.assert_allclose(run(embeddings, labels, 2 * mask, 0.7), run(*repeated, 0.7), rtol=1e-10)


def test_the_weights_are_those_of_the_scaled_problem_of_r2d2():
    embeddings, labels, _ = task(6, 20)
    points, targets = embeddings / np.sqrt(6), labels / np.sqrt(6)
    expected = points.T @ np.linalg.solve(points @ points.T + 0.7 * np.eye(6), targets)
    weights = run(jnp.asarray(embeddings), jnp.asarray(labels), jnp.ones(6), 6 * 0.7)
    np.testing.assert_allclose(weights, expected.T, rtol=1e-10)


@pytest.mark.float32
@pytest.mark.parametrize(("support", "feature"), [(25, 64), (25, 20)])
def test_the_smaller_form_keeps_its_digits_where_norms_are_large(support, feature):
    embeddings, labels, mask = task(support, feature)
    embeddings = 100 / np.sqrt(feature) * np.maximum(embeddings + 1, 0)
    single = [array.astype(np.float32) for array in (embeddings, labels, mask)]
    oracle = Ridge(alpha=1.0, fit_intercept=False)
    expected = oracle.fit(single[0].astype(float), labels, sample_weight=single[2].astype(float)).coef_
    weights = run(*(jnp.asarray(array) for array in single), 1.0)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=3e-5 * np.max(np.abs(expected)))


def test_a_batch_by_vmap_equals_a_loop_and_the_order_of_examples_does_not_count():
    tasks = [[jnp.asarray(array) for array in task(6, 20, seed)] for seed in range(3)]
    batch = jax.vmap(run, in_axes=(0, 0, 0, None))(*(jnp.stack(arrays) for arrays in zip(*tasks, strict=True)), 0.7)
    for weights, arguments in zip(batch, tasks, strict=True):
        np.testing.assert_allclose(weights, run(*arguments, 0.7), rtol=1e-10)
        np.testing.assert_allclose(weights, run(*(array[::-1] for array in arguments), 0.7), rtol=1e-10)
