import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comln.data.augmentation import AffineJitter
from comln.data.glyphs import JITTER

STILL = {"rotation": 0.0, "log_scale": 0.0, "shear": 0.0, "shift": 0.0}


def picture(size: int = 9) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, size, size, 1)), jnp.uint8)


def test_the_same_key_gives_the_same_pictures_and_another_key_others():
    images = jnp.tile(picture(44), (3, 1, 1, 1))
    first, again, other = (JITTER(images, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first[0], first[1])


def test_without_jitter_every_second_pixel_is_sampled():
    half = AffineJitter(size=5, pixel=2.0, **STILL)
    image = picture(9)
    np.testing.assert_array_equal(half(image, jax.random.key(0)), image[:, ::2, ::2])


@pytest.mark.parametrize(("angle", "turns"), [(90.0, 1), (180.0, 2)])
def test_a_quarter_turn_is_a_quarter_turn(angle, turns):
    turn = AffineJitter(size=9, pixel=1.0, **{**STILL, "rotation": angle})
    # The draw that turns by exactly the field: the jitter of one image with every number at one end.
    turned = turn._vary(picture()[0], jnp.asarray([1.0, 0.0, 0.0, 0.0, 0.0], jnp.float32))
    np.testing.assert_array_equal(turned, jnp.rot90(picture()[0], turns))


def test_a_shift_by_whole_pixels_moves_the_picture_and_fills_with_black():
    shift = AffineJitter(size=9, pixel=1.0, **{**STILL, "shift": 2.0})
    moved = shift._vary(picture()[0], jnp.asarray([0.0, 0.0, 0.0, 1.0, 0.0], jnp.float32))
    np.testing.assert_array_equal(moved[:, :-2], picture()[0][:, 2:])
    assert int(moved[:, -2:].max()) == 0
