"""Learners whose head is the solution of a convex problem: what they add to it, against independent forms."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from comln.backbones import Identity
from comln.heads.svm import svm_dual
from comln.learners import LRD2, R2D2, MetaOptNetRidge, MetaOptNetSVM, ProtoNet
from tests.learners.tasks import episode

TASK = episode(shots=3)
SUPPORT, QUERY = TASK.support, TASK.query
BACKBONE = Identity(4)


def logits(learner):
    return learner.classify(TASK).logits


def test_metaoptnet_with_ridge_is_its_dual_form():
    learner = eqx.tree_at(lambda m: m.scale, MetaOptNetRidge.init(BACKBONE, regularisation=2.0), jnp.array(1.7))
    kernel = SUPPORT.inputs @ SUPPORT.inputs.T
    coefficients = 2 * jnp.linalg.solve(kernel + 2.0 * jnp.eye(len(kernel)), SUPPORT.labels)
    expected = 1.7 * QUERY.inputs @ SUPPORT.inputs.T @ coefficients
    np.testing.assert_allclose(logits(learner), expected, rtol=1e-10)


@pytest.mark.parametrize("iterations", [3, 15])
def test_metaoptnet_with_a_support_vector_machine_weighs_the_kernel_by_the_dual_variables(iterations):
    learner = MetaOptNetSVM.init(BACKBONE, bound=0.1, iterations=iterations)
    learner = eqx.tree_at(lambda m: m.scale, learner, jnp.array(1.7))
    kernel = SUPPORT.inputs @ SUPPORT.inputs.T
    coefficients = svm_dual(kernel, SUPPORT.labels, SUPPORT.mask, 0.1, 1.0, iterations)
    np.testing.assert_allclose(logits(learner), 1.7 * QUERY.inputs @ SUPPORT.inputs.T @ coefficients, rtol=1e-10)


@pytest.mark.parametrize(
    "learner",
    [MetaOptNetRidge.init(BACKBONE), MetaOptNetSVM.init(BACKBONE), R2D2.init(BACKBONE, initial_scale=1.0)],
    ids=lambda learner: type(learner).__name__,
)
def test_on_fixed_embeddings_nothing_that_is_learned_changes_a_decision(learner):
    scaled = eqx.tree_at(lambda m: m.scale, learner, 37.0 * learner.scale)
    if isinstance(learner, R2D2):
        scaled = eqx.tree_at(lambda m: m.shift, scaled, jnp.array(-5.0))
    np.testing.assert_array_equal(logits(scaled).argmax(axis=1), logits(learner).argmax(axis=1))
    assert float(jnp.max(jnp.abs(logits(scaled) - logits(learner)))) > 1e-3


@pytest.mark.parametrize("shots", [1, 5])
def test_r2d2_is_ridge_regression_whose_weight_grows_with_the_examples(shots):
    """Woodbury's form where examples are few, the primal where they are many: scikit-learn agrees with both."""
    task, regularisation = episode(shots=shots), 0.7
    x = np.asarray(task.support.inputs)
    with_one = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    reference = Ridge(alpha=regularisation * len(x), fit_intercept=False).fit(with_one, task.support.labels)
    learner = R2D2.init(BACKBONE, regularisation, initial_scale=1.3)
    learner = eqx.tree_at(lambda m: m.shift, learner, jnp.array(0.4))
    query = np.concatenate([task.query.inputs, np.ones((len(task.query.inputs), 1))], axis=1)
    expected = 1.3 * query @ reference.coef_.T + 0.4
    np.testing.assert_allclose(learner.classify(task).logits, expected, rtol=1e-9)


def test_lrd2_is_one_logistic_regression_a_class_and_its_bias_is_penalised():
    regularisation, x = 2.0, np.asarray(SUPPORT.inputs)
    with_one, classes = np.concatenate([x, np.ones((len(x), 1))], axis=1), np.asarray(SUPPORT.labels).argmax(axis=1)
    query = np.concatenate([QUERY.inputs, np.ones((len(QUERY.inputs), 1))], axis=1)
    scores = [
        LogisticRegression(C=1 / regularisation, fit_intercept=False, tol=1e-12, max_iter=1000)
        .fit(with_one, classes == one)
        .decision_function(query)
        for one in range(3)
    ]
    found = logits(LRD2(BACKBONE, regularisation=regularisation, iterations=12))
    np.testing.assert_allclose(found, np.stack(scores, axis=1), rtol=1e-5, atol=1e-6)


def test_protonet_prefers_the_nearest_mean_by_the_difference_of_squared_distances():
    means = np.stack([np.asarray(SUPPORT.inputs)[n * 3 : n * 3 + 3].mean(axis=0) for n in range(3)])
    squares = ((np.asarray(QUERY.inputs)[:, None] - means[None]) ** 2).sum(axis=2)
    found = np.asarray(logits(ProtoNet(BACKBONE)))
    differences = (found + squares) - (found + squares)[:, :1]
    np.testing.assert_allclose(differences, 0.0, atol=1e-10)
