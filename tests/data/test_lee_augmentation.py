import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.backbones import AbstractBackbone, Normalisation
from comln.data.augmentation import LeeAugmentation
from comln.data.augmentation.lee import _jitter
from comln.data.batches import make_batch, scale_bytes, to_episodes
from comln.data.pixel_scaling import CIFAR_PIXELS, MINI_IMAGENET_PIXELS, PixelScaling
from comln.data.sampling import EpisodeShape, Sampler
from comln.evaluate import embedded_tasks
from tests.data.splits import stripes

KEY = jax.random.key(0)
PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "flip": 0.0}


class Flat(AbstractBackbone):
    """The pixels themselves."""

    @property
    def embedding_size(self):
        return 256

    def initial_statistics(self):
        return ()

    def __call__(self, inputs, statistics, normalisation, key=None):
        return inputs.reshape(len(inputs), -1), statistics


def pictures(count: int = 1, size: int = 9, channels: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(1, 256, (count, size, size, channels)), jnp.uint8)


def test_the_same_key_gives_the_same_pictures_and_each_its_own():
    images = jnp.tile(pictures(), (3, 1, 1, 1))
    vary = jax.jit(LeeAugmentation(padding=2))
    first, again, other = (vary(images, jax.random.key(seed)) for seed in (1, 1, 2))
    assert first.shape == images.shape and first.dtype == jnp.uint8
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first[0], first[1])


def test_crops_begin_everywhere_both_ends_of_the_frame_included_and_the_frame_is_black():
    image = pictures()
    crops = np.asarray(LeeAugmentation(padding=2, **PLAIN)(jnp.tile(image, (600, 1, 1, 1)), KEY))
    framed = np.pad(np.asarray(image[0]), ((2, 2), (2, 2), (0, 0)))
    counts = {
        (i, j): int((crops == framed[i : i + 9, j : j + 9]).all((1, 2, 3)).sum())
        for i, j in itertools.product(range(5), range(5))
    }
    assert sum(counts.values()) == 600 and min(counts.values()) > 5  # 24 expected


def test_half_of_the_pictures_are_mirrored():
    image = pictures()
    flipped = LeeAugmentation(padding=0, **{**PLAIN, "flip": 0.5})(jnp.tile(image, (400, 1, 1, 1)), KEY)
    mirrored = np.asarray((flipped == image[:, :, ::-1]).all((1, 2, 3)))
    assert np.asarray((flipped == image).all((1, 2, 3)))[~mirrored].all()
    assert 150 < mirrored.sum() < 250


def by_hand(image: np.ndarray, factors, order) -> np.ndarray:
    for operation in order:
        grey = image @ np.array([0.2989, 0.587, 0.114])
        against = (np.zeros(()), grey.mean(), grey[..., None])[operation]
        image = np.clip(factors[operation] * image + (1 - factors[operation]) * against, 0, 255)
    return image


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_colours_change_in_the_given_order_with_a_clip_after_each_change(order):
    image, factors = np.asarray(pictures()[0], np.float32), (1.4, 0.6, 1.3)
    varied = _jitter(jnp.asarray(image), jnp.asarray(factors, jnp.float32), jnp.asarray(order, jnp.int32))
    np.testing.assert_allclose(varied, by_hand(image, factors, order), atol=1e-3)


def test_factors_are_uniform_and_an_operation_without_a_field_does_nothing():
    """With one operation switched on, the factor of each picture can be read off."""
    grey = jnp.full((2000, 2, 2, 3), 100, jnp.uint8)
    brighter = np.asarray(LeeAugmentation(0, 0.4, 0.0, 0.0, 0.0)(grey, KEY))[:, 0, 0, 0]
    assert brighter.min() == 60 and brighter.max() == 140 and abs(brighter.mean() - 100) < 2
    np.testing.assert_array_equal(LeeAugmentation(0, 0.0, 0.0, 0.0, 0.0)(pictures(9), KEY), pictures(9))
    np.testing.assert_array_equal(LeeAugmentation(0, 0.0, 0.0, 0.4, 0.0)(grey, KEY), grey)  # grey has no colour


def test_grey_pictures_have_one_channel_and_others_are_refused():
    one = pictures(4, channels=1)
    np.testing.assert_array_equal(LeeAugmentation(0, 0.0, 0.0, 0.4, 0.0)(one, KEY), one)
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        LeeAugmentation()(pictures(channels=2), KEY)


# The scaling of pixels


def test_constants_are_those_that_were_published():
    np.testing.assert_allclose(MINI_IMAGENET_PIXELS.mean, [0.472141, 0.453308, 0.409961], atol=1e-6)
    np.testing.assert_allclose(MINI_IMAGENET_PIXELS.spread, [0.277184, 0.267750, 0.284490], atol=1e-6)
    np.testing.assert_allclose(CIFAR_PIXELS.mean, [0.507362, 0.486690, 0.441089], atol=1e-6)
    np.testing.assert_allclose(CIFAR_PIXELS.spread, [0.267488, 0.256593, 0.276309], atol=1e-6)


def test_bytes_are_scaled_and_other_numbers_are_not():
    scaling = PixelScaling((0.5, 0.2, 0.0), (0.25, 0.5, 1.0))
    expected = (np.asarray(pictures()) / 255 - [0.5, 0.2, 0.0]) / [0.25, 0.5, 1.0]
    np.testing.assert_allclose(scale_bytes(pictures(), scaling), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(scale_bytes(jnp.ones((2, 3)), scaling), jnp.ones((2, 3)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PixelScaling((0.5,), (0.0,)), "a positive spread for each channel"),
        (lambda: PixelScaling((0.5, 0.5), (1.0,)), "a mean and a positive spread for each channel"),
        (lambda: MINI_IMAGENET_PIXELS(jnp.ones((2, 1))), "images of 3 channels, got 1"),
    ],
)
def test_a_scaling_that_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("normalisation", list(Normalisation))
def test_training_and_evaluation_see_pixels_scaled_alike(normalisation):
    split = stripes(scaling=PixelScaling((0.5,), (0.25,)))
    sampler = Sampler(split, EpisodeShape(3, 2, 4))
    trained = to_episodes(make_batch(sampler, 0, [0]), None, KEY, split.scaling).query.inputs[0]
    (evaluated, *_) = embedded_tasks(Flat(), (), sampler, 2, 0, normalisation)
    np.testing.assert_allclose(evaluated.query.inputs[0], trained.reshape(len(trained), -1), rtol=1e-6)
    np.testing.assert_allclose(
        trained, (split.examples[sampler.draw(0, 0).query.ravel()] / 255 - 0.5) / 0.25, rtol=1e-6
    )


def test_the_frame_of_a_crop_is_black_before_it_is_scaled():
    """Padding comes before normalisation: the border is a black pixel's number, not that of the mean colour."""
    split = stripes(augmentation=LeeAugmentation(padding=16, **PLAIN), scaling=PixelScaling((0.5,), (0.25,)))
    batch = make_batch(Sampler(split, EpisodeShape(3, 2, 4)), 0, range(8))
    images = to_episodes(batch, split.augmentation, KEY, split.scaling).query.inputs
    assert float(images.min()) == pytest.approx(-2.0) and bool(jnp.all(images[0] >= -2.0 - 1e-9))
    edges = jnp.stack([images[..., 0, :, :].max((-1, -2)), images[..., -1, :, :].max((-1, -2))])
    # One of 33 crops begins where the image does, and shows no frame above or below.
    assert float(jnp.mean(edges.min(0) == -2.0)) > 0.85
