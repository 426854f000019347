"""First updates of each optimiser, worked out by hand."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Identity
from comln.learners import COMLN, MetaSGD
from comln.optimiser import SGD, Adam, StepwiseAdam

LEARNER = COMLN.init(Identity(2), 2, jax.random.key(0))
START = LEARNER.initial_weights


@pytest.fixture(autouse=True)
def optax_may_mix_types():
    with jax.numpy_dtype_promotion("standard"):
        yield


def numbers_of(learner) -> Any:
    """Return what is meta-learned of a learner."""
    return eqx.filter(learner, eqx.is_inexact_array)


def updates(optimiser, gradients, learner=LEARNER, steps=60):
    """Return the changes of W0 and of log T, one for each gradient; every entry of W0 has the same."""
    transformation: Any = optimiser.build(learner, steps)
    parameters = numbers_of(learner)
    state, changes = transformation.init(parameters), []
    for gradient in gradients:
        slopes = jax.tree.map(lambda x, g=gradient: jnp.full_like(x, g), parameters)
        change, state = transformation.update(slopes, state, parameters)
        changes.append((np.asarray(change.initial_weights), float(change.log_horizon)))
    return changes


def test_the_first_step_of_adam_is_its_rate_whatever_the_gradient():
    for gradient in (1e-3, 7.0):
        ((weights, horizon),) = updates(StepwiseAdam(learning_rate=0.1, epsilon=1e-12), [gradient])
        np.testing.assert_allclose(weights, -0.1, rtol=1e-6)
        assert horizon == pytest.approx(-0.1, rel=1e-6)


def test_a_large_epsilon_makes_small_gradients_slow():
    ((weights, _),) = updates(StepwiseAdam(learning_rate=0.1, epsilon=1.0), [3.0])
    np.testing.assert_allclose(weights, -0.1 * 3 / (3 + 1), rtol=1e-6)


def test_the_rate_falls_in_stairs():
    changes = updates(StepwiseAdam(learning_rate=0.1, decay=0.5, decay_every=2), [1.0] * 5)
    np.testing.assert_allclose([w[0, 0] for w, _ in changes], [-0.1, -0.1, -0.05, -0.05, -0.025], rtol=1e-5)


def test_numbers_are_clipped_before_arrays():
    """Four numbers of 3 become 1, an array of norm 2, which is shortened to 1: each is 0.5. The other way it were 0.5
    before numbers are looked at, so a bound of 0.1 tells them apart."""
    ((weights, _),) = updates(StepwiseAdam(learning_rate=0.1, epsilon=1.0, clip_numbers=1.0, clip_arrays=1.0), [3.0])
    np.testing.assert_allclose(weights, -0.1 * 0.5 / 1.5, rtol=1e-6)
    # Uneven numbers: (10, 1, 1, 1) become (1, 1, 1, 1), of norm 2; shortened first, they would stay uneven.
    transformation: Any = StepwiseAdam(0.1, epsilon=1.0, clip_numbers=1.0, clip_arrays=1.0).build(LEARNER, 60)
    parameters = numbers_of(LEARNER)
    uneven = jnp.array([[10.0, 1.0], [1.0, 1.0]])
    slopes = jax.tree.map(lambda x: uneven if x.shape == (2, 2) else jnp.zeros_like(x), parameters)
    change, _ = transformation.update(slopes, transformation.init(parameters), parameters)
    np.testing.assert_allclose(change.initial_weights, -0.1 * 0.5 / 1.5, rtol=1e-6)


def test_a_short_array_is_not_lengthened():
    ((weights, _),) = updates(StepwiseAdam(learning_rate=0.1, epsilon=1.0, clip_arrays=100.0), [3.0])
    np.testing.assert_allclose(weights, -0.1 * 3 / 4, rtol=1e-6)


def test_sgd_falls_where_lee_et_al_let_it_and_spares_the_horizon_its_decay():
    plain = SGD(learning_rate=0.1, momentum=0.0, weight_decay=0.5)
    changes = updates(plain, [1.0] * 60)
    rates = [-horizon for _, horizon in changes]
    np.testing.assert_allclose(rates, [0.1] * 19 + [0.006] * 20 + [0.0012] * 10 + [0.00024] * 11, rtol=1e-5)
    np.testing.assert_allclose(changes[0][0], -0.1 * (1 + 0.5 * np.asarray(START)), rtol=1e-6)


def test_nesterovs_momentum_looks_ahead():
    first, second = updates(SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.0), [1.0, 1.0])
    assert first[1] == pytest.approx(-0.1 * (1 + 0.9), rel=1e-6)
    assert second[1] == pytest.approx(-0.1 * (1 + 0.9 * (1 + 0.9)), rel=1e-6)


def test_groups_of_adam_have_their_own_rates_and_step_sizes_do_not_decay():
    optimiser = Adam(learning_rate=0.1, horizon_learning_rate=0.01, warmup=0.0, weight_decay=0.0)
    _, (weights, horizon) = updates(optimiser, [1e-3, 1e-3], steps=10_000)
    np.testing.assert_allclose(weights, -0.1, rtol=1e-3)
    assert horizon == pytest.approx(-0.01, rel=1e-3)
    learner = MetaSGD.init(Identity(2), 2, jax.random.key(0))
    transformation: Any = Adam(learning_rate=0.1, warmup=0.0, weight_decay=0.5).build(learner, 10_000)
    parameters = numbers_of(learner)
    state, nothing = transformation.init(parameters), jax.tree.map(jnp.zeros_like, parameters)
    _, state = transformation.update(nothing, state, parameters)
    change, _ = transformation.update(nothing, state, parameters)
    assert float(jnp.max(jnp.abs(change.step_sizes.linear.weights))) == 0.0
    np.testing.assert_allclose(change.network.linear.weights, -0.1 * 0.5 * learner.network.linear.weights, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepwiseAdam(clip_numbers=0.0), "clip_numbers must be above 0"),
        (lambda: StepwiseAdam(clip_arrays=-1.0), "clip_arrays must be above 0"),
        (lambda: StepwiseAdam(decay_every=0), "decay_every must be at least 1"),
        (lambda: StepwiseAdam(learning_rate=float("inf")), "learning_rate must be at least 0 and finite"),
        (lambda: SGD(momentum=-0.1), "momentum must be at least 0"),
        (lambda: Adam(warmup=1.0), "warm-up is a share"),
    ],
)
def test_senseless_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("settings", [Adam(), SGD(), StepwiseAdam()])
def test_learners_that_differ_in_numbers_alone_have_one_transformation(settings):
    other = COMLN.init(Identity(2), 2, jax.random.key(7), initial_horizon=3.0)
    built = settings.build(LEARNER, 60)
    assert settings.build(other, 60) is built
    assert type(settings)(learning_rate=0.017).build(LEARNER, 60) is not built
    if not isinstance(settings, StepwiseAdam):
        assert settings.build(LEARNER, 61) is not built
        assert settings.build(MetaSGD.init(Identity(2), 2, jax.random.key(0)), 60) is not built
