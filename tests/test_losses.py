import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln import CrossEntropy, SigmoidCrossEntropy, SquaredError

LOSSES = [CrossEntropy(), SigmoidCrossEntropy(), SquaredError()]


def by_class(value):
    return type(value).__name__


def rows(seed=0, ways=4):
    rng = np.random.default_rng(seed)
    labels = rng.dirichlet(np.ones(ways), size=6)
    labels[0], labels[1] = np.eye(ways)[2], 0.0
    return jnp.asarray(3 * rng.normal(size=(6, ways))), jnp.asarray(labels)


@pytest.mark.parametrize("loss", LOSSES, ids=by_class)
def test_gradient_and_curvature_are_the_derivatives_of_the_value(loss):
    logits, labels = rows()

    def one(logits, labels):
        return loss.value(logits[None], labels[None])[0]

    def plain(logits, labels):
        # Written out, since the library's own value has a derivative of its own.
        match loss:
            case CrossEntropy():
                return -jnp.sum(labels * (logits - jax.scipy.special.logsumexp(logits)))
            case SigmoidCrossEntropy():
                return jnp.sum(jnp.log1p(jnp.exp(logits)) - labels * logits)
            case _:
                return jnp.sum((logits - labels) ** 2) / 2

    np.testing.assert_allclose(loss.value(logits, labels), jax.vmap(plain)(logits, labels), rtol=1e-12)
    for function in (one, plain):
        gradient = jax.vmap(jax.grad(function, argnums=(0, 1)))(logits, labels)
        np.testing.assert_allclose(loss.gradient(logits, labels), gradient[0], rtol=1e-12, atol=1e-14)
        curvature = jax.vmap(jax.hessian(function))(logits, labels)
        np.testing.assert_allclose(loss.curvature(logits, labels), curvature, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(one, argnums=1))(logits, labels), jax.vmap(jax.grad(plain, argnums=1))(logits, labels)
    )


@pytest.mark.parametrize("loss", LOSSES, ids=by_class)
def test_curvature_product_and_bound_belong_to_the_curvature(loss):
    logits, labels = rows(1)
    vectors = jnp.asarray(np.random.default_rng(2).normal(size=logits.shape))
    curvature = loss.curvature(logits, labels)
    product = jnp.einsum("mij,mj->mi", curvature, vectors)
    np.testing.assert_allclose(loss.curvature_product(logits, labels, vectors), product, rtol=1e-11, atol=1e-14)
    largest = jnp.linalg.eigvalsh(curvature)[:, -1]
    bound = loss.curvature_bound(logits, labels)
    assert jnp.all(bound >= largest * (1 - 1e-12)) and jnp.all(bound <= 2 * largest + 1e-12)


@pytest.mark.float32
@pytest.mark.parametrize("margin", [5.0, 12.0, 18.0])
def test_float32_residuals_and_curvature_of_saturated_logits_keep_their_digits(margin):
    logits = np.array([[margin, 0.0, -0.4, 0.7]])
    labels = np.eye(4)[:1]
    vectors = np.array([[0.3, -1.0, 2.0, 0.5]])
    with jax.enable_x64(True):
        exact = [jnp.asarray(x) for x in (logits, labels, vectors)]
        loss = CrossEntropy()
        residual, product = loss.gradient(*exact[:2]), loss.curvature_product(*exact)
        value_gradient = jax.grad(lambda x: loss.value(x, exact[1])[0])(exact[0])
        curvature = loss.curvature(*exact[:2])
    single = [jnp.asarray(x, jnp.float32) for x in (logits, labels, vectors)]
    loss = CrossEntropy()
    np.testing.assert_allclose(loss.gradient(*single[:2]), residual, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: loss.value(x, single[1])[0])(single[0]), value_gradient, rtol=1e-5)
    np.testing.assert_allclose(loss.curvature_product(*single), product, rtol=1e-5)
    moved = jax.jvp(lambda x: loss.gradient(x, single[1]), (single[0],), (single[2],))[1]
    np.testing.assert_allclose(moved, product, rtol=1e-5)
    np.testing.assert_allclose(loss.curvature(*single[:2]), curvature, rtol=2e-5)


def test_cross_entropy_of_a_row_without_labels_is_zero():
    logits, labels = rows()
    assert float(CrossEntropy().value(logits, labels)[1]) == 0.0
    assert float(jnp.max(jnp.abs(CrossEntropy().gradient(logits, labels)[1]))) == 0.0
