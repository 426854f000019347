import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, SigmoidCrossEntropy, SquaredError
from comln.flow.head_flow import HeadFlow, HeadParameters

LOSSES = [CrossEntropy(), SigmoidCrossEntropy(), SquaredError()]


def setting(loss, in_span, weights):
    rng = np.random.default_rng(0)
    support, way, size = 7, 3, 5
    embeddings = rng.normal(size=(support, size))
    factor = embeddings @ embeddings.T if in_span else embeddings
    parameters = HeadParameters(jnp.asarray(factor), jnp.asarray(rng.normal(size=(support, way))), jnp.asarray(0.3))
    constants = (jnp.eye(way)[jnp.arange(support) % way], jnp.asarray(weights / weights.sum()))
    state, right = (jnp.asarray(rng.normal(size=(support if in_span else size, way))) for _ in range(2))
    return HeadFlow(loss, in_span), parameters, constants, state, right


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("in_span", [True, False])
@pytest.mark.parametrize("weights", [np.ones(7), np.array([1.0, 2.0, 0.0, 0.3, 1.0, 0.0, 1.0])], ids=["even", "masked"])
def test_the_structured_solve_equals_a_dense_one_and_so_do_its_derivatives(loss, in_span, weights):
    flow, parameters, constants, state, right = setting(loss, in_span, weights)
    shift = jnp.asarray(0.7)

    def matrix(state, parameters, shift):
        jacobian = jax.jacobian(flow.rate)(state, parameters, constants).reshape(state.size, state.size)
        return shift * jnp.eye(state.size) - jacobian

    def dense(state, parameters, shift, right):
        return jnp.linalg.solve(matrix(state, parameters, shift), right.ravel()).reshape(right.shape)

    def structured(state, parameters, shift, right):
        return flow.resolvent(state, shift, parameters, constants)(right)

    arguments = (state, parameters, shift, right)
    np.testing.assert_allclose(jax.jit(structured)(*arguments), dense(*arguments), rtol=1e-11, atol=1e-13)
    transposed = flow.resolvents(state, shift, parameters, constants)[1](right)
    expected = jnp.linalg.solve(matrix(state, parameters, shift).T, right.ravel()).reshape(right.shape)
    np.testing.assert_allclose(transposed, expected, rtol=1e-11, atol=1e-13)

    def gradients(solve):
        return jax.jit(jax.grad(lambda *arguments: jnp.sum(jnp.sin(solve(*arguments))), argnums=(0, 1, 2, 3)))

    for a, b in zip(
        jax.tree.leaves(gradients(structured)(*arguments)), jax.tree.leaves(gradients(dense)(*arguments)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("in_span", [True, False])
def test_the_radius_bounds_every_rate_of_decay(loss, in_span):
    flow, parameters, constants, state, _ = setting(loss, in_span, np.ones(7))
    jacobian = jax.jacobian(flow.rate)(state, parameters, constants).reshape(state.size, state.size)
    fastest = float(jnp.max(jnp.abs(jnp.linalg.eigvals(jacobian))))
    assert fastest <= float(flow.radius(state, parameters, constants)) <= 20 * fastest
