import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import Normalisation, ResNet12
from comln.backbones.layers import convolve_by_patches, drop_block, dropout
from comln.episode import Episode, Examples
from comln.episodic import meta_loss
from comln.learners import COMLN, MAML

KEY = jax.random.key(0)
NARROW = (2, 3, 4, 5)


def images(count: int = 6, size: int = 16, channels: int = 1) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((count, size, size, channels)))


def narrow(size: int = 16, **settings) -> ResNet12:
    return ResNet12.init(size, 1, KEY, widths=NARROW, **settings)


@eqx.filter_jit
def embed(backbone, inputs, statistics, normalisation, key=None):
    return backbone(inputs, statistics, normalisation, key)


def embed_first(backbone, inputs, key=None):
    return embed(backbone, inputs, backbone.initial_statistics(), Normalisation.BATCH, key)


@pytest.mark.parametrize(
    ("size", "channels", "average", "features"),
    [(84, 3, False, 16_000), (84, 3, True, 640), (32, 3, False, 4 * 640), (28, 1, False, 640)],
)
def test_sizes_are_those_of_the_paper(size, channels, average, features):
    make = lambda: ResNet12.init(size, channels, KEY, global_average=average)  # noqa: E731
    backbone = eqx.filter_eval_shape(make)
    assert backbone.embedding_size == features
    inputs = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float64)
    shape = eqx.filter_eval_shape(lambda b, x: embed_first(b, x)[0], backbone, inputs).shape
    assert shape == (2, features)


def test_parameter_count_of_the_papers_network():
    backbone = eqx.filter_eval_shape(ResNet12.init, 84, 3, KEY)
    structs = [leaf for leaf in jax.tree.leaves(backbone) if isinstance(leaf, jax.ShapeDtypeStruct)]
    count = 0
    for size_in, size_out in ((3, 64), (64, 160), (160, 320), (320, 640)):
        # Three 3 x 3 convolutions and the 1 x 1 one, without biases; scale and shift of four normalisations.
        count += 9 * (size_in + 2 * size_out) * size_out + size_in * size_out + 4 * 2 * size_out
    assert count == 12_424_320 == sum(int(np.prod(leaf.shape)) for leaf in structs)


def test_kernels_have_the_spread_of_their_fan_out():
    backbone = ResNet12.init(16, 1, KEY, widths=(64, 64, 64, 64))
    block = backbone.blocks[1]
    assert float(jnp.std(block.convolutions[2].kernel)) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(jnp.std(block.shortcut.kernel)) == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert all(convolution.bias is None for convolution in block.convolutions)


def test_a_block_is_what_is_written_in_the_paper():
    """One block, written out with the compiler's own convolution and pooling."""
    backbone = narrow()
    block, inputs = backbone.blocks[0], images()

    def normalise(x):
        return (x - x.mean((0, 1, 2))[None, None, None]) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)[None, None, None]

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def rectify(x):
        return jnp.where(x > 0, x, 0.1 * x)

    hidden = inputs
    for number, layer in enumerate(block.convolutions):
        hidden = normalise(convolve(hidden, layer.kernel))
        hidden = rectify(hidden) if number < 2 else hidden
    total = rectify(hidden + normalise(convolve(inputs, block.shortcut.kernel[None, None])))
    expected = jax.lax.reduce_window(total, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    actual, _ = block(inputs, block.initial_statistics(), Normalisation.BATCH)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def test_the_average_is_that_of_the_flattened_features_over_the_pixels():
    flat, averaged = (narrow(32, scale_output=False, global_average=g) for g in (False, True))
    inputs = images(3, 32)
    features = embed_first(flat, inputs)[0].reshape(3, 2, 2, NARROW[-1])
    np.testing.assert_allclose(embed_first(averaged, inputs)[0], features.mean((1, 2)), rtol=1e-10)
    scaled = embed_first(narrow(32), inputs)[0]
    np.testing.assert_allclose(scaled * (4 * NARROW[-1]) ** 0.5, features.reshape(3, -1), rtol=1e-10)


def test_with_running_statistics_an_embedding_does_not_depend_on_the_others():
    backbone = narrow()
    _, statistics = embed_first(backbone, images())
    together, unmoved = embed(backbone, images(), statistics, Normalisation.RUNNING)
    alone, _ = embed(backbone, images()[2:3], statistics, Normalisation.RUNNING)
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-10)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), unmoved, statistics))
    assert not np.allclose(embed(backbone, images()[:3], statistics, Normalisation.BATCH)[0], together[:3])


def test_both_forms_of_the_convolution_give_one_network():
    direct, patched = narrow(), narrow(convolve=convolve_by_patches)
    np.testing.assert_allclose(embed_first(direct, images())[0], embed_first(patched, images())[0], rtol=1e-9)


@pytest.mark.float32
def test_in_half_precision_features_are_close_and_everything_else_keeps_its_precision():
    number = jnp.result_type(float)
    inputs = images().astype(number)
    exact, (half, moved) = embed_first(narrow(), inputs)[0], embed_first(narrow(bfloat16=True), inputs)
    assert half.dtype == number and {x.dtype for x in jax.tree.leaves(moved.blocks)} == {number}
    assert 0 < float(jnp.abs(half - exact).max()) < 0.1 * float(jnp.abs(exact).max())
    slopes = eqx.filter_grad(lambda b: jnp.sum(embed_first(b, inputs)[0] ** 2))(narrow(bfloat16=True))
    leaves = [x for x in jax.tree.leaves(slopes) if eqx.is_array(x)]
    assert {x.dtype for x in leaves} == {number} and all(bool(jnp.all(jnp.isfinite(x))) for x in leaves)


# Dropout and DropBlock


def test_without_a_key_nothing_is_random_and_nothing_is_counted():
    backbone = narrow(dropout=0.5, drop_block=0.5, drop_block_size=1)
    embeddings, statistics = embed_first(backbone, images())
    np.testing.assert_array_equal(embeddings, embed_first(narrow(), images())[0])
    assert int(statistics.calls) == 0


def test_a_key_determines_what_is_dropped_and_the_call_is_counted():
    backbone = narrow(dropout=0.5, drop_block=0.5, drop_block_size=1, drop_block_calls=1)
    first, statistics = embed_first(backbone, images(), KEY)
    np.testing.assert_array_equal(first, embed_first(backbone, images(), KEY)[0])
    assert not np.allclose(first, embed_first(backbone, images(), jax.random.key(1))[0])
    assert int(statistics.calls) == 1


def test_the_rate_of_dropblock_grows_to_its_value_and_stays():
    backbone = narrow(drop_block=0.1, drop_block_size=1, drop_block_calls=40)
    rates = [float(backbone._drop_block_rate(jnp.asarray(calls, jnp.int32))) for calls in (0, 19, 39, 40, 1000)]
    np.testing.assert_allclose(rates, [0.1 / 40, 0.05, 0.1, 0.1, 0.1], rtol=1e-6)


def test_dropblock_drops_squares_at_the_rate_and_keeps_the_mean():
    size, side = 3, 10
    dropped = drop_block(jnp.ones((40, side, side, 50)), jnp.asarray(0.1), size, KEY)
    zero = np.asarray(dropped == 0)
    # A pixel is kept if no square begins at any of the places whose square covers it; few places do at the border.
    chance = 0.1 / size**2 * side**2 / (side - size + 1) ** 2
    ways = np.convolve(np.ones(side - size + 1), np.ones(size))
    expected = (1 - chance) ** np.outer(ways, ways)
    np.testing.assert_allclose(1 - zero.mean((0, 3)), expected, atol=0.03)
    assert float(dropped.mean()) == pytest.approx(1.0, rel=1e-9)
    # Each zero lies in a 3 x 3 square of zeros.
    places = range(side - size + 1)
    squares = np.zeros_like(zero)
    for i in places:
        for j in places:
            whole = np.all(zero[:, i : i + size, j : j + size], axis=(1, 2))
            squares[:, i : i + size, j : j + size] |= whole[:, None, None]
    np.testing.assert_array_equal(squares, zero)


def test_if_everything_is_dropped_the_result_is_zero_and_finite():
    dropped = drop_block(jnp.ones((1, 5, 5, 2)), jnp.asarray(1.0), 5, KEY)
    np.testing.assert_array_equal(dropped, jnp.zeros((1, 5, 5, 2)))


def test_dropout_keeps_the_mean():
    dropped = dropout(jnp.ones((10, 20, 20, 10)), 0.3, KEY)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)
    assert float((dropped == 0).mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 15}, "at least 16 pixels a side, got 15"),
        ({"widths": (4, 0, 4, 4)}, "at least 1 channel in every block, got 4, 0, 4, 4"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"drop_block": -0.1}, "DropBlock must be at least 0 and below 1, got -0.1"),
        ({"drop_block": 0.1, "image_size": 64}, "between 1 and 4 pixels wide.*64 x 64 images, got 5"),
        ({"drop_block_calls": 0}, "at least 1 call, got 0"),
    ],
)
def test_senseless_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResNet12.init(**{"image_size": 84, "channels": 1, "key": KEY, "widths": NARROW, **settings})


# In training

TRACES = []


def episodes(seed: int = 0) -> Episode:
    rng = np.random.default_rng(seed)
    labels = jnp.tile(jnp.repeat(jnp.eye(2), 2, axis=0), (3, 1, 1))

    def examples():
        return Examples(jnp.asarray(rng.random((3, 4, 16, 16, 1))), labels, jnp.ones((3, 4)))

    return Episode(examples(), examples())


@eqx.filter_jit
def slopes_of(model, tasks, statistics, key):
    TRACES.append(type(model))
    loss = eqx.filter_value_and_grad(lambda m: meta_loss(m, tasks, statistics, Normalisation.BATCH, key), has_aux=True)
    return loss(model)


def test_training_draws_anew_counts_and_is_traced_once():
    model = COMLN.init(narrow(dropout=0.2, drop_block=0.2, drop_block_size=1), 2, KEY)
    statistics, losses = model.backbone.initial_statistics(), []
    for step in range(3):
        key = jax.random.fold_in(KEY, step)
        (loss, (statistics, _)), slopes = slopes_of(model, episodes(), statistics, key)
        losses.append(float(loss))
        for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
            assert bool(jnp.all(jnp.isfinite(slope))), path
    assert int(statistics.calls) == 3 and len(set(losses)) == 3 and len(TRACES) == 1


@pytest.mark.slow
def test_a_whole_network_of_it_can_be_adapted():
    model = MAML.init(narrow(convolve=convolve_by_patches, scale_output=False), 2, KEY, steps=2)
    (_, (_, info)), slopes = slopes_of(model, episodes(), (), KEY)
    assert int(info.dropped) == 0
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert bool(jnp.all(jnp.isfinite(slope))) and float(jnp.abs(slope).max()) > 0, path
