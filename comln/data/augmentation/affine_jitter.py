"""Rotated, scaled, sheared and shifted images."""

__all__ = ["AffineJitter"]

import jax
import jax.numpy as jnp

from comln.data.augmentation.base import AbstractAugmentation
from comln.typing import Array, Float, PRNGKeyArray, UInt8


class AffineJitter(AbstractAugmentation):
    r"""A random rotation, scale, shear and shift about the centre, sampled bilinearly; outside the image it is black.

    Pixel $u$ of the result, measured from the centre, shows the image at $p\,A u + v$ with
    $A = e^\sigma R(\theta) \begin{pmatrix} 1 & \tau \\ 0 & 1 \end{pmatrix}$; the rotation $\theta$, $\sigma$, $\tau$
    and the shift $v$ are uniform, each between plus and minus its field.

    - `size`: height and width of the result, in pixels.
    - `pixel`: $p$, how many pixels of the image one pixel of the result covers.
    - `rotation`: in degrees. `log_scale`: $\sigma$. `shear`: $\tau$. `shift`: in pixels of the image.

    **Example:** without jitter, a result of the same size is the image.

    >>> still = AffineJitter(size=3, pixel=1.0, rotation=0.0, log_scale=0.0, shear=0.0, shift=0.0)
    >>> image = jnp.arange(9, dtype=jnp.uint8).reshape(1, 3, 3, 1)
    >>> still(image, jax.random.key(0)).ravel().tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8]
    """

    size: int
    pixel: float
    rotation: float
    log_scale: float
    shear: float
    shift: float

    def __call__(
        self, images: UInt8[Array, "example height width channel"], key: PRNGKeyArray
    ) -> UInt8[Array, "example new_height new_width channel"]:
        draws = jax.random.uniform(key, (len(images), 5), jnp.float32, -1.0, 1.0)
        return jax.vmap(self._vary)(images, draws)

    def _vary(
        self, image: UInt8[Array, "height width channel"], draw: Float[Array, "5"]
    ) -> UInt8[Array, "new_height new_width channel"]:
        height, width = image.shape[:2]
        angle, scale = draw[0] * jnp.deg2rad(self.rotation), self.pixel * jnp.exp(draw[1] * self.log_scale)
        shear, cosine, sine = draw[2] * self.shear, jnp.cos(angle), jnp.sin(angle)
        offset = jnp.arange(self.size, dtype=jnp.float32) - (self.size - 1) / 2
        down, right = offset[:, None], offset[None, :]
        x = scale * (cosine * right + (cosine * shear - sine) * down) + draw[3] * self.shift + (width - 1) / 2
        y = scale * (sine * right + (sine * shear + cosine) * down) + draw[4] * self.shift + (height - 1) / 2
        return jnp.round(_sample(image, y, x)).astype(jnp.uint8)


def _sample(
    image: UInt8[Array, "height width channel"], y: Float[Array, "rows columns"], x: Float[Array, "rows columns"]
) -> Float[Array, "rows columns channel"]:
    """Return the image at fractional positions: bilinear, black outside."""
    framed = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).astype(jnp.float32)
    height, width, channels = framed.shape
    y, x = jnp.clip(y + 1, 0, height - 1.001), jnp.clip(x + 1, 0, width - 1.001)
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    below, beside = (y - top.astype(jnp.float32))[..., None], (x - left.astype(jnp.float32))[..., None]
    flat, corner = framed.reshape(-1, channels), top * width + left

    def at(shift: int) -> Float[Array, "rows columns channel"]:
        return flat[corner + shift]

    above = (1 - beside) * at(0) + beside * at(1)
    under = (1 - beside) * at(width) + beside * at(width + 1)
    return (1 - below) * above + below * under
