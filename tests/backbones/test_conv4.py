import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Conv4, Normalisation
from comln.backbones.layers import BatchNorm, PointwiseConvolution, max_pool, norm_and_pool
from comln.backbones.layers.convolution import (
    _convolve_directly,
    _kernel_cotangent_by_patches,
    convolve,
    convolve_by_patches,
)


def images(count: int = 6, size: int = 16, channels: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((count, size, size, channels)))


@pytest.mark.parametrize(
    ("size", "channels", "filters", "features"), [(84, 3, 64, 1600), (28, 1, 32, 32), (16, 1, 8, 8)]
)
def test_sizes_are_those_of_the_paper(size, channels, filters, features):
    backbone = Conv4.init(size, channels, filters, jax.random.key(0))
    assert backbone.embedding_size == features
    shape = jax.eval_shape(
        lambda x: backbone(x, backbone.initial_statistics(), Normalisation.BATCH)[0],
        jax.ShapeDtypeStruct((2, size, size, channels), jnp.float64),
    ).shape
    assert shape == (2, features)


def test_parameter_count_of_the_papers_network():
    backbone = Conv4.init(84, 3, 64, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(backbone) if isinstance(leaf, jax.Array))
    assert count == 9 * 3 * 64 + 3 * 9 * 64 * 64 + 4 * 2 * 64


def test_an_image_too_small_for_four_halvings_is_refused():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        Conv4.init(15, 1, 8, jax.random.key(0))


def test_with_running_statistics_an_embedding_does_not_depend_on_the_others():
    backbone = Conv4.init(16, 1, 8, jax.random.key(0))
    _, statistics = backbone(images(), backbone.initial_statistics(), Normalisation.BATCH)
    together, unmoved = backbone(images(), statistics, Normalisation.RUNNING)
    alone, _ = backbone(images()[2:3], statistics, Normalisation.RUNNING)
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-12)
    assert unmoved is not None and jax.tree.all(jax.tree.map(lambda a, b: jnp.array_equal(a, b), unmoved, statistics))
    batch, _ = backbone(images()[2:3], statistics, Normalisation.BATCH)
    assert not np.allclose(batch, alone)


def test_running_averages_converge_to_the_statistics_of_the_batches():
    norm = BatchNorm.init(3)
    inputs = 2.0 + 3.0 * jnp.asarray(np.random.default_rng(0).normal(size=(50, 8, 8, 3)))
    statistics = norm.initial_statistics()
    for _ in range(200):
        _, statistics = norm(inputs, statistics, Normalisation.BATCH)
    batch, _ = norm(inputs, statistics, Normalisation.BATCH)
    running, _ = norm(inputs, statistics, Normalisation.RUNNING)
    np.testing.assert_allclose(batch, running, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(statistics.mean, jnp.mean(inputs, (0, 1, 2)), rtol=1e-6)


def test_scaled_output_divides_by_the_root_of_the_embedding_size():
    key, mode = jax.random.key(0), Normalisation.BATCH
    scaled, plain = (Conv4.init(32, 1, 8, key, scale_output=scale) for scale in (True, False))
    first, second = (b(images(size=32), b.initial_statistics(), mode)[0] for b in (scaled, plain))
    np.testing.assert_allclose(first * 32**0.5, second, rtol=1e-10)


@pytest.mark.parametrize(
    ("size", "channels", "filters"),
    [(28, 1, 4), (14, 8, 4), (14, 9, 4), (5, 6, 4), (3, 3, 4), (84, 3, 8), (42, 64, 4), (10, 320, 20), (5, 320, 640)],
)
def test_convolution_by_patches_equals_the_direct_one_with_its_gradients(size, channels, filters):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(7, size, size, channels)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, filters)))
    cotangent = jnp.asarray(rng.normal(size=(7, size, size, filters)))
    expected, pull_back = jax.vjp(_convolve_directly, inputs, kernel)
    actual, ours = jax.vjp(convolve, inputs, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(convolve_by_patches(inputs, kernel), expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(ours(cotangent), pull_back(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [4, 5])
def test_max_pool_equals_the_windowed_maximum_with_its_gradient(size):
    inputs = images(3, size, 2)
    window = (1, 2, 2, 1)

    def reference(x):
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")

    expected, pull_back = jax.vjp(reference, inputs)
    actual, ours = jax.vjp(max_pool, inputs)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(ours(jnp.ones_like(actual))[0], pull_back(jnp.ones_like(expected))[0])


@pytest.mark.parametrize("normalisation", list(Normalisation))
def test_normalising_after_the_maximum_equals_normalising_before_it(normalisation):
    norm = BatchNorm(jnp.array([1.5, -0.7, 0.0]), jnp.array([0.1, 0.2, 0.3]))
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7, 7, 3)))
    statistics = norm.initial_statistics()

    def plain(norm, inputs):
        normalised, moved = norm(inputs, statistics, normalisation)
        return max_pool(normalised), moved

    def ours(norm, inputs):
        return norm_and_pool(norm, inputs, statistics, normalisation)

    (expected, moved), (actual, moved_too) = plain(norm, inputs), ours(norm, inputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(moved.mean, moved_too.mean)
    np.testing.assert_array_equal(moved.variance, moved_too.variance)
    # At a factor of exactly zero the maximum has a kink, and its slope in the factor is one of two.
    weights = jnp.asarray(np.random.default_rng(1).normal(size=expected.shape)).at[..., 2].set(0.0)
    first, second = (
        jax.grad(lambda n, x, f=f: jnp.sum(weights * f(n, x)[0]), argnums=(0, 1))(norm, inputs) for f in (plain, ours)
    )
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_pointwise_convolution_is_the_compilers_with_its_gradients():
    rng = np.random.default_rng(0)
    inputs, kernel = jnp.asarray(rng.normal(size=(3, 5, 5, 4))), jnp.asarray(rng.normal(size=(4, 6)))

    def reference(x, k):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, k[None, None], (1, 1), "VALID", dimension_numbers=numbers)

    expected, pull_back = jax.vjp(reference, inputs, kernel)
    actual, ours = jax.vjp(lambda x, k: PointwiseConvolution(k)(x), inputs, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    for a, b in zip(ours(expected), pull_back(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


@pytest.mark.float32
def test_in_half_precision_features_are_close_and_everything_else_keeps_its_precision():
    number = jnp.result_type(float)
    inputs = images(size=32).astype(number)
    exact, half = (Conv4.init(32, 1, 8, jax.random.key(0), bfloat16=b) for b in (False, True))
    expected, _ = exact(inputs, exact.initial_statistics(), Normalisation.BATCH)
    actual, moved = half(inputs, half.initial_statistics(), Normalisation.BATCH)
    assert actual.dtype == number and {x.dtype for x in jax.tree.leaves(moved)} == {number}
    assert 0 < float(jnp.abs(actual - expected).max()) < 0.1 * float(jnp.abs(expected).max())
    slopes, slopes_too = (
        jax.tree.leaves(
            eqx.filter_grad(lambda b: jnp.sum(b(inputs, b.initial_statistics(), Normalisation.BATCH)[0] ** 2))(b)
        )
        for b in (exact, half)
    )
    for a, b in zip(slopes, slopes_too, strict=True):
        assert b.dtype == number and float(jnp.linalg.norm(b - a)) < 0.3 * float(jnp.linalg.norm(a)) + 1e-3


def test_the_weight_gradient_in_half_precision_sums_in_full():
    rng = np.random.default_rng(0)
    images, cotangent = (jnp.asarray(rng.random((40, 8, 8, c)), jnp.bfloat16) for c in (9, 4))
    kernel = jnp.zeros((3, 3, 9, 4), jnp.bfloat16)
    exact = _kernel_cotangent_by_patches(*(x.astype(jnp.float32) for x in (images, kernel, cotangent)))
    half = _kernel_cotangent_by_patches(images, kernel, cotangent)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, rtol=2**-8)
