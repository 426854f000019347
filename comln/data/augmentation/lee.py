r"""The variations that Lee et al. (2019) train on: a shifted crop, other colours, a mirror image."""

__all__ = ["LeeAugmentation"]

import jax
import jax.numpy as jnp

from comln.data.augmentation.base import AbstractAugmentation
from comln.typing import Array, Float, Int, PRNGKeyArray, UInt8

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey value."""


class LeeAugmentation(AbstractAugmentation):
    r"""A random crop of the image in a black frame, colour jitter, and a horizontal flip, in this order.

    Colour jitter is three operations in random order: brightness, contrast and saturation. Each is a blend
    $\lambda x + (1 - \lambda) r$ of the image $x$ with $r$: black, its mean grey, or its grey version. $\lambda$ is
    uniform between one minus and one plus the field, and a clip to the range of a pixel follows. All draws are made for
    each image by itself. Images have one channel (where the grey version is the image) or three: red, green, blue.

    - `padding`: width of the frame, in pixels. The crop has the image's size, and begins anywhere from one end of the
      frame to the other: at one of $2 \cdot$ `padding` $+ 1$ places along each axis.
    - `brightness`, `contrast`, `saturation`: in $[0, 1]$.
    - `flip`: probability of a flip.

    The authors' settings are the defaults, for 84 x 84 images; for 32 x 32 ones their `padding` is 4.

    **Example:** with nothing to vary, a result is the image.

    >>> still = LeeAugmentation(padding=0, brightness=0.0, contrast=0.0, saturation=0.0, flip=0.0)
    >>> image = jnp.arange(9, dtype=jnp.uint8).reshape(1, 3, 3, 1)
    >>> still(image, jax.random.key(0)).ravel().tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """

    padding: int = 8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    flip: float = 0.5

    def __call__(
        self, images: UInt8[Array, "example height width channel"], key: PRNGKeyArray
    ) -> UInt8[Array, "example height width channel"]:
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"Colour jitter is for images of 1 or 3 channels, got {images.shape[-1]}.")
        count = len(images)
        of_crop, of_factors, of_order, of_flip = jax.random.split(key, 4)
        offsets = jax.random.randint(of_crop, (count, 2), 0, 2 * self.padding + 1)
        spreads = jnp.asarray([self.brightness, self.contrast, self.saturation], jnp.float32)
        factors = 1 + spreads[None, :] * jax.random.uniform(of_factors, (count, 3), jnp.float32, -1.0, 1.0)
        orders = jax.vmap(lambda k: jax.random.permutation(k, 3))(jax.random.split(of_order, count))
        flips = jax.random.bernoulli(of_flip, self.flip, (count, 1, 1, 1))
        cropped = jax.vmap(self._crop)(images, offsets)
        coloured = jax.vmap(_jitter)(cropped.astype(jnp.float32), factors, orders)
        return jnp.round(jnp.where(flips, coloured[:, :, ::-1], coloured)).astype(jnp.uint8)

    def _crop(
        self, image: UInt8[Array, "height width channel"], offset: Int[Array, "2"]
    ) -> UInt8[Array, "height width channel"]:
        framed = jnp.pad(image, ((self.padding, self.padding), (self.padding, self.padding), (0, 0)))
        start = (offset[0], offset[1], jnp.zeros_like(offset[0]))
        return jax.lax.dynamic_slice(framed, start, image.shape)


def _jitter(
    image: Float[Array, "height width channel"], factors: Float[Array, "3"], order: Int[Array, "3"]
) -> Float[Array, "height width channel"]:
    """Return the image after brightness (0), contrast (1) and saturation (2) in this order; values from 0 to 255."""
    for place in range(3):
        operation = order[place]
        grey = _grey(image)
        against = jnp.where(operation == 2, grey, jnp.where(operation == 1, jnp.mean(grey), 0.0))
        factor = factors[operation]
        image = jnp.clip(factor * image + (1 - factor) * against, 0.0, 255.0)
    return image


def _grey(image: Float[Array, "height width channel"]) -> Float[Array, "height width 1"]:
    if image.shape[-1] == 1:
        return image
    return jnp.sum(image * jnp.asarray(GREY, image.dtype)[None, None, :], axis=-1, keepdims=True)
