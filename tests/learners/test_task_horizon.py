import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.episode import Episode, Examples
from comln.flow.integrator import Integrator
from comln.learners import COMLN, TaskHorizon
from comln.learners.base import ParameterGroup
from comln.learners.task_horizon import support_statistics

WAYS, SHOTS, SIZE = 3, 4, 6


def examples(seed, shots=SHOTS):
    key_noise, key_means = jax.random.split(jax.random.key(seed))
    labels = jnp.repeat(jnp.eye(WAYS), shots, axis=0)
    inputs = labels @ jax.random.normal(key_means, (WAYS, SIZE)) + 0.7 * jax.random.normal(
        key_noise, (WAYS * shots, SIZE)
    )
    return Examples(inputs, labels, jnp.ones(WAYS * shots))


def factor():
    drawn = TaskHorizon.init(jax.random.key(1))
    return eqx.tree_at(lambda m: m.output, drawn, jax.random.normal(jax.random.key(2), drawn.output.shape))


def logits(support):
    return support.inputs @ jax.random.normal(jax.random.key(3), (WAYS, SIZE)).T


def learner(task_horizon):
    return COMLN.init(
        Identity(SIZE), WAYS, jax.random.key(0), 2.0, task_horizon=task_horizon, integrator=Integrator(1e-9, 1e-9)
    )


def test_the_statistics_are_those_of_the_eigenvalues():
    support = examples(0)
    x, y = np.asarray(support.inputs), np.asarray(support.labels)
    x, y = (x - x.mean(axis=0)) / np.sqrt(len(x)), (y - y.mean(axis=0)) / np.sqrt(len(y))
    eigenvalues = np.linalg.svd(x, compute_uv=False) ** 2
    total, squares, cubes = (np.sum(eigenvalues**power) for power in (1, 2, 3))
    within = sum(np.sum((part - part.mean(axis=0)) ** 2) for part in np.split(x, WAYS))
    kernel, target = x @ x.T, y @ y.T
    losses = -jnp.sum(support.labels * jax.nn.log_softmax(logits(support)), axis=1)
    expected = [
        np.log(WAYS / 5),
        np.log(SHOTS),
        np.mean(losses) / np.log(WAYS) - 1,
        np.log(total),
        np.log(total**2 / squares),
        np.log(cubes * total / squares**2),
        np.sum(kernel * target) / np.linalg.norm(kernel) / np.linalg.norm(target),
        within / total,
    ]
    np.testing.assert_allclose(support_statistics(support, logits(support)), expected, rtol=1e-11)


def test_the_order_of_examples_and_the_names_of_classes_do_not_matter():
    support, horizon = examples(0), factor()
    rows, classes = np.random.default_rng(0).permutation(WAYS * SHOTS), np.array([2, 0, 1])
    mixed = Examples(support.inputs[rows], support.labels[rows][:, classes], support.mask[rows])
    expected = horizon(support, logits(support))
    np.testing.assert_allclose(horizon(mixed, logits(support)[rows][:, classes]), expected, rtol=1e-12)
    assert abs(float(expected) - 1) > 0.1


def test_an_example_of_weight_zero_does_not_count():
    support, horizon = examples(0), factor()
    padded = Examples(
        jnp.concatenate([support.inputs, 9 * jnp.ones((2, SIZE))]),
        jnp.concatenate([support.labels, jnp.zeros((2, WAYS))]),
        jnp.concatenate([support.mask, jnp.zeros(2)]),
    )
    np.testing.assert_allclose(horizon(padded, logits(padded)), horizon(support, logits(support)), rtol=1e-12)


def test_untrained_all_tasks_have_one_horizon():
    support = examples(0)
    shared, own = learner(None), learner(TaskHorizon.init(jax.random.key(1)))
    assert float(own.horizon_for(support)) == float(own.horizon)
    np.testing.assert_array_equal(own.adapt(support)[0].weights, shared.adapt(support)[0].weights)


@pytest.mark.parametrize("support", [Examples(jnp.ones((3, SIZE)), jnp.eye(3), jnp.ones(3)), examples(0, shots=1)])
def test_gradients_are_finite_where_statistics_are_at_their_limits(support):
    gradient = jax.grad(lambda x: factor()(Examples(x, support.labels, support.mask), jnp.zeros((3, 3))))(
        support.inputs
    )
    assert jnp.all(jnp.isfinite(gradient))


def test_it_is_learned_by_the_exact_gradient_in_the_horizon():
    episode, trained = Episode(examples(0), examples(1)), learner(factor())
    parameters, fixed = eqx.partition(trained, eqx.is_inexact_array)

    def loss(parameters):
        return eqx.combine(parameters, fixed).objective(episode)[0]

    gradient = jax.grad(loss)(parameters)
    for leaf in (lambda m: m.task_horizon.output, lambda m: m.task_horizon.weights, lambda m: m.log_horizon):
        value, slope = leaf(parameters), leaf(gradient)
        way = jax.random.normal(jax.random.key(4), value.shape)
        ahead, behind = (loss(eqx.tree_at(leaf, parameters, value + sign * 1e-5 * way)) for sign in (1, -1))
        np.testing.assert_allclose(jnp.sum(slope * way), (ahead - behind) / 2e-5, rtol=1e-5)
        assert jnp.all(slope != 0)


def test_it_falls_under_the_horizon():
    groups = learner(factor()).parameter_groups()
    assert set(jax.tree.leaves((groups.task_horizon, groups.log_horizon))) == {ParameterGroup.HORIZON}
    assert groups.initial_weights is ParameterGroup.NETWORK


def test_with_a_given_horizon_every_task_takes_it():
    own = learner(factor())
    assert float(own.horizon_for(examples(0))) != pytest.approx(float(own.horizon_for(examples(1))))
    given = own.with_horizon(3.0)
    for seed in (0, 1):
        assert float(given.horizon_for(examples(seed))) == pytest.approx(3.0)
    head, _ = given.adapt(examples(0))
    expected, _ = own.adapt_for(jnp.asarray(3.0), examples(0))
    np.testing.assert_allclose(head.weights, expected.weights, rtol=1e-12)
