import jax.numpy as jnp
import numpy as np
import pytest

from comln.flow.meta_gradients.forward_sensitivity import (
    horizon_gradient,
    project_embeddings,
    project_initial_weights,
)
from comln.flow.span_coordinates import (
    coefficient_rate,
    feature_sensitivity_rate,
    flow_curvature,
    flow_logits,
    propagator_rate,
    weights_from_coefficients,
)
from comln.losses import CrossEntropy
from tests.paper import literal

SUPPORT, WAYS, SIZE = 4, 3, 5


def random_state(seed: int):
    """Return random embeddings, labels, initial weights and sensitivities: the equations hold for any."""
    rng = np.random.default_rng(seed)
    state = literal.State(
        s=rng.normal(size=(SUPPORT, WAYS)),
        B=rng.normal(size=(SUPPORT, SUPPORT, WAYS, WAYS)),
        z=rng.normal(size=(SUPPORT, SUPPORT, SUPPORT, WAYS)),
    )
    labels = rng.dirichlet(np.ones(WAYS), SUPPORT)
    return state, rng.normal(size=(SUPPORT, SIZE)), labels, rng.normal(size=(WAYS, SIZE)), rng.normal(size=(WAYS, SIZE))


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("proximal", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_fast_rates_equal_the_literal_ones(seed, proximal):
    state, phi, labels, start, _ = random_state(seed)
    expected = literal.dynamics(state, start, phi, labels, proximal)
    gram, initial_logits = jnp.asarray(phi @ phi.T), jnp.asarray(phi @ start.T)
    share, weight, loss = jnp.full(SUPPORT, 1 / SUPPORT), jnp.asarray(proximal), CrossEntropy()
    s, B, z = (jnp.asarray(part) for part in state)
    logits = flow_logits(s, gram, initial_logits)
    curvature = flow_curvature(logits, jnp.asarray(labels), share, loss)
    close(curvature, literal.curvatures(literal.probabilities(literal.weights(state.s, start, phi), phi)))
    close(coefficient_rate(s, gram, initial_logits, jnp.asarray(labels), share, weight, loss), expected.s)
    close(propagator_rate(B, curvature, gram, weight), expected.B)
    close(feature_sensitivity_rate(z, s, curvature, gram, weight), expected.z)


@pytest.mark.parametrize("seed", range(3))
def test_fast_projections_equal_the_literal_ones(seed):
    state, phi, _labels, start, outer = random_state(seed)
    s, B, z = (jnp.asarray(part) for part in state)
    embeddings, weights_bar, initial = jnp.asarray(phi), jnp.asarray(outer), jnp.asarray(start)
    close(weights_from_coefficients(initial, s, embeddings), literal.weights(state.s, start, phi))
    close(project_initial_weights(weights_bar, B, embeddings), literal.project_onto_W_0(outer, state.B, phi))
    expected = np.stack([literal.project_onto_phi(m, outer, state, start, phi) for m in range(SUPPORT)])
    close(project_embeddings(weights_bar, s, B, z, initial, embeddings), expected)


@pytest.mark.parametrize("proximal", [0.0, 0.3])
def test_fast_horizon_gradient_equals_the_literal_one(proximal):
    state, phi, labels, start, outer = random_state(0)
    weights = literal.weights(state.s, start, phi)
    gradient = literal.gradient(weights, start, phi, labels, proximal)
    gram, logits = jnp.asarray(phi @ phi.T), jnp.asarray(phi @ start.T)
    share, weight = jnp.full(SUPPORT, 1 / SUPPORT), jnp.asarray(proximal)
    rate = coefficient_rate(jnp.asarray(state.s), gram, logits, jnp.asarray(labels), share, weight, CrossEntropy())
    actual = horizon_gradient(jnp.asarray(outer), rate, jnp.asarray(phi))
    close(actual, literal.meta_gradient_of_T(outer, gradient))
