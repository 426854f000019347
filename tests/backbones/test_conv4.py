import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Conv4, Normalisation
from comln.backbones.layers import BatchNorm, max_pool
from comln.backbones.layers.convolution import _convolve_directly, convolve, convolve_by_patches


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


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (14, 8), (5, 6), (3, 3)])
def test_convolution_by_patches_equals_the_direct_one_with_its_gradients(size, channels):
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(7, size, size, channels)))
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, 4)))
    cotangent = jnp.asarray(rng.normal(size=(7, size, size, 4)))
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
