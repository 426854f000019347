import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from comln.heads import svm
from comln.heads.svm import svm_dual

SUPPORT, WAY, FEATURE, TASKS = 25, 5, 64, 8
BOUND, RIDGE = 0.1, 1.0
SQUARED_NORMS = [1e-2, 1.0, 1e2, 1e4]
DIRECTION_OF_WEIGHTS = np.random.default_rng(9).normal(size=(WAY, FEATURE))


def batch(squared_norm):
    """Return embeddings after a rectifier, in classes that overlap, and one-hot labels: eight tasks."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.eye(WAY)[np.arange(SUPPORT) % WAY], (TASKS, 1, 1))
    means, noise = labels @ rng.normal(size=(TASKS, WAY, FEATURE)) / 3, rng.normal(size=(TASKS, SUPPORT, FEATURE))
    embeddings = np.maximum(0.5 + means + noise, 0)
    embeddings *= np.sqrt(squared_norm / np.mean(np.sum(embeddings**2, axis=2)))
    return embeddings.astype(np.float32).astype(np.float64), labels


def single(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def objective(embeddings, labels, alpha):
    weights = alpha.T @ embeddings
    return (np.sum(weights**2) + RIDGE * np.sum(alpha**2)) / 2 - np.sum(labels * alpha)


def slope(embeddings, labels, alpha):
    return embeddings @ (embeddings.T @ alpha) + RIDGE * alpha - labels


def optimality_gap(embeddings, labels, mask, alpha):
    r"""Return $\max_{\alpha'} \langle \nabla f(\alpha), \alpha - \alpha' \rangle \ge f(\alpha) - \min f$.

    The maximum is over all feasible points: what is left of a row of one to its caps lies in a simplex.
    """
    caps, gradient = BOUND * mask[:, None] * labels, slope(embeddings, labels, alpha)
    return np.sum(np.sum(caps, axis=1) * np.max(gradient, axis=1)) - np.sum(gradient * (caps - alpha))


# Compiled once for all tests.


@jax.jit
@jax.vmap
def coefficients(embeddings, labels, mask):
    return svm_dual(jnp.matmul(embeddings, embeddings.T, precision="highest"), labels, mask)


def linear(embeddings, labels, mask, bound, ridge):
    weights = svm(embeddings, labels, mask, bound, ridge)
    return jnp.sum(weights * jnp.asarray(DIRECTION_OF_WEIGHTS, weights.dtype))


value_of = jax.jit(jax.vmap(linear, in_axes=(0, 0, 0, None, None)))
gradients_of = jax.jit(jax.vmap(jax.grad(linear, argnums=(0, 1, 2, 3, 4)), in_axes=(0, 0, 0, None, None)))


# The solution


@pytest.mark.float32
@pytest.mark.parametrize("squared_norm", SQUARED_NORMS)
@pytest.mark.parametrize(("smoothing", "least_weight"), [(0.0, 1.0), (0.1, 0.05)], ids=["plain", "smoothed, uneven"])
def test_no_feasible_point_is_better_and_float32_finds_it(squared_norm, smoothing, least_weight):
    embeddings, labels = batch(squared_norm)
    labels = ((1 - smoothing) * labels + smoothing / WAY).astype(np.float32).astype(np.float64)
    masks = np.tile(np.linspace(least_weight, 1.0, SUPPORT).astype(np.float32).astype(np.float64), (TASKS, 1))
    rough = np.asarray(coefficients(*single(embeddings, labels, masks)), np.float64)
    with jax.enable_x64(True):
        exact = np.asarray(coefficients(*(jnp.asarray(array) for array in (embeddings, labels, masks))))
    for t in range(TASKS):
        x, y, mask = embeddings[t], labels[t], masks[t]
        least = objective(x, y, exact[t])
        assert optimality_gap(x, y, mask, exact[t]) < 1e-9 * abs(least)
        assert abs(objective(x, y, rough[t]) - least) < 1e-6 * abs(least)
        for alpha, precision in ((exact[t], 1e-14), (rough[t], 1e-6)):
            assert np.all(alpha - BOUND * mask[:, None] * y < precision * BOUND)
            assert np.max(np.abs(np.sum(alpha, axis=1))) < precision * np.max(np.abs(alpha))


def least_objective(x, y):
    """Return the least value that sequential quadratic programming finds."""

    def value_and_slope(left):
        alpha = BOUND * (y - left.reshape(y.shape))
        return objective(x, y, alpha), -BOUND * slope(x, y, alpha).ravel()

    sums = np.kron(np.eye(len(y)), np.ones(WAY))
    found = minimize(
        value_and_slope,
        np.full(y.size, 1 / WAY),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * y.size,
        constraints=[{"type": "eq", "fun": lambda left: sums @ left - 1, "jac": lambda left: sums}],
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    return found.fun


@pytest.mark.float32
def test_the_objective_is_that_of_sequential_quadratic_programming_on_the_rows_with_weight():
    embeddings, labels = batch(1.0)
    count = 10
    x, y = embeddings[0, :count], labels[0, :count]
    least = least_objective(x, y)
    masks = np.tile(np.arange(SUPPORT) < count, (TASKS, 1))
    alpha = np.asarray(coefficients(*single(embeddings, labels, masks)), np.float64)[0]
    assert np.all(alpha[count:] == 0)
    assert abs(objective(x, y, alpha[:count]) - least) < 1e-6 * abs(least)


@pytest.mark.slow
@pytest.mark.float32
def test_so_it_is_for_eight_tasks_of_25_examples_at_once_in_single_precision():
    embeddings, labels = batch(1.0)
    alphas = np.asarray(coefficients(*single(embeddings, labels, np.ones((TASKS, SUPPORT)))), np.float64)
    for x, y, alpha in zip(embeddings, labels, alphas, strict=True):
        least = least_objective(x, y)
        assert abs(objective(x, y, alpha) - least) < 1e-6 * abs(least)


@pytest.mark.float32
def test_iterations_after_the_last_digit_are_harmless():
    embeddings, labels = single(*batch(100.0))
    expected = jnp.einsum("tmn,tmf->tnf", coefficients(embeddings, labels, jnp.ones_like(labels[:, :, 0])), embeddings)
    run = jax.jit(jax.vmap(lambda x, y: svm(x, y, jnp.ones_like(y[:, 0]), iterations=100)))
    np.testing.assert_allclose(run(embeddings, labels), expected, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(expected))))


# The gradient


@pytest.mark.float32
@pytest.mark.parametrize("squared_norm", SQUARED_NORMS)
def test_float32_gradients_of_a_batch_equal_central_differences(squared_norm):
    """In the embeddings along four directions, in the bound and in the ridge; the differences in double precision."""
    arrays, masks = batch(squared_norm), np.ones((TASKS, SUPPORT))
    gradients = gradients_of(*single(*arrays, masks, BOUND, RIDGE))
    in_embeddings, in_labels, in_mask, in_bound, in_ridge = (np.asarray(array, np.float64) for array in gradients)
    directions = np.random.default_rng(7).normal(size=(4, TASKS, SUPPORT, FEATURE))

    with jax.enable_x64(True):
        x, y, masks, bound, ridge = (jnp.asarray(array) for array in (*arrays, masks, BOUND, RIDGE))
        step = 1e-6 * np.sqrt(squared_norm)
        size = float(jnp.linalg.norm(value_of(x, y, masks, bound, ridge)))

        def slopes(up, down, step):
            return np.asarray(value_of(*up) - value_of(*down)) / (2 * step)

        along = [
            slopes((x + step * e, y, masks, bound, ridge), (x - step * e, y, masks, bound, ridge), step)
            for e in directions
        ]
        bound_slopes = slopes((x, y, masks, bound + 1e-6, ridge), (x, y, masks, bound - 1e-6, ridge), 1e-6)
        ridge_slopes = slopes((x, y, masks, bound, ridge + 1e-6), (x, y, masks, bound, ridge - 1e-6), 1e-6)
    difference = np.einsum("tif,ktif->kt", in_embeddings, directions) - np.array(along)
    assert np.linalg.norm(difference) < 1e-4 * np.linalg.norm(along)
    # Where the norms are large, these two are small beside the value.
    assert np.linalg.norm(in_bound - bound_slopes) < 1e-5 * (np.linalg.norm(bound_slopes) + size / BOUND)
    assert np.linalg.norm(in_ridge - ridge_slopes) < 1e-5 * (np.linalg.norm(ridge_slopes) + size / RIDGE)
    assert np.all(in_labels == 0) and np.all(in_mask == 0)


def test_float64_gradients_are_exact_to_the_last_digits_of_the_differences():
    embeddings, *constants = (jnp.asarray(array) for array in (*batch(1.0), np.ones((TASKS, SUPPORT)), BOUND, RIDGE))
    direction = jnp.asarray(np.random.default_rng(7).normal(size=embeddings.shape))
    slopes = jnp.sum(gradients_of(embeddings, *constants)[0] * direction, axis=(1, 2))
    up, down = (value_of(embeddings + change * direction, *constants) for change in (1e-6, -1e-6))
    np.testing.assert_allclose(slopes, (up - down) / 2e-6, rtol=1e-7)


def test_a_second_derivative_is_refused():
    embeddings, labels, mask = jnp.eye(2), jnp.eye(2), jnp.ones(2)
    once = jax.grad(lambda x: jnp.sum(svm(x, labels, mask)))
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.jit(jax.grad(lambda x: jnp.sum(once(x))))(embeddings)


# Masks, batches and order


@pytest.mark.float32
def test_rows_without_weight_have_no_effect_and_no_gradient_whatever_stands_in_them():
    embeddings, labels = (jnp.asarray(array) for array in batch(1.0))
    masks = jnp.ones((TASKS, SUPPORT)).at[:, 20:].set(0)
    hidden = [array.at[:, 20:].set(jnp.nan) for array in (embeddings, labels)]
    ends = (jnp.asarray(BOUND), jnp.asarray(RIDGE))
    for gradient, expected in zip(
        gradients_of(*hidden, masks, *ends), gradients_of(embeddings, labels, masks, *ends), strict=True
    ):
        assert jnp.all(gradient == expected) and jnp.all(jnp.isfinite(gradient))
    assert jnp.all(gradients_of(*hidden, masks, *ends)[0][:, 20:] == 0)
    assert jnp.all(coefficients(*hidden, masks) == coefficients(embeddings, labels, masks))


@pytest.mark.float32
def test_a_task_without_weights_or_without_labels_has_a_zero_solution_and_gradient():
    embeddings, labels = (jnp.asarray(array) for array in batch(1.0))
    ones = jnp.ones((TASKS, SUPPORT))
    for constants in ((labels, 0 * ones), (0 * labels, ones)):
        assert jnp.all(coefficients(embeddings, *constants) == 0)
        gradients = gradients_of(embeddings, *constants, jnp.asarray(BOUND), jnp.asarray(RIDGE))
        assert all(jnp.all(gradient == 0) for gradient in gradients)


def test_a_class_without_examples_is_found_nowhere_in_the_support():
    embeddings, labels = batch(100.0)
    classes = np.where(labels[:, :, 3] == 1, 0, np.argmax(labels, axis=2))
    alpha = coefficients(jnp.asarray(embeddings), jnp.asarray(np.eye(WAY)[classes]), jnp.ones((TASKS, SUPPORT)))
    scores = embeddings @ (np.swapaxes(embeddings, 1, 2) @ np.asarray(alpha))
    assert np.all(np.argmax(scores, axis=2) == classes)


def test_a_batch_by_vmap_equals_a_loop_and_the_order_of_examples_and_ways_does_not_count():
    embeddings, labels = (jnp.asarray(array) for array in batch(10.0))
    mask = jnp.linspace(0.1, 1.0, SUPPORT)
    alphas = coefficients(embeddings, labels, jnp.tile(mask, (TASKS, 1)))
    run = jax.jit(svm)
    for x, y, alpha in zip(embeddings, labels, alphas, strict=True):
        expected = alpha.T @ x
        np.testing.assert_allclose(run(x, y, mask), expected, rtol=0, atol=1e-12)
        backwards = run(x[::-1], y[::-1, ::-1], mask[::-1])
        np.testing.assert_allclose(backwards[::-1], expected, rtol=0, atol=1e-12)
