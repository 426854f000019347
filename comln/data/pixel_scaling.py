"""How the bytes of an image become the numbers that a network sees."""

__all__ = ["CIFAR_PIXELS", "MINI_IMAGENET_PIXELS", "PixelScaling"]

import equinox as eqx
import jax.numpy as jnp

from comln.typing import Array, Float


class PixelScaling(eqx.Module):
    r"""$(x / 255 - \mu) / \sigma$, channel by channel.

    - `mean`, `spread`: $\mu$ and $\sigma > 0$, one number for each channel, of pixels between 0 and 1.

    >>> PixelScaling((0.5,), (0.25,))(jnp.array([[0.0, 255.0]]).T).ravel().tolist()
    [-2.0, 2.0]
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    def __check_init__(self) -> None:
        if len(self.mean) != len(self.spread) or not all(spread > 0 for spread in self.spread):
            raise ValueError(
                f"Pixels need a mean and a positive spread for each channel, got {self.mean} and {self.spread}."
            )

    def __call__(self, values: Float[Array, "*example channel"]) -> Float[Array, "*example channel"]:
        """Return the values, of 0 to 255, centred and scaled."""
        if values.shape[-1] != len(self.mean):
            raise ValueError(f"The pixel scaling is for images of {len(self.mean)} channels, got {values.shape[-1]}.")
        shape = (1,) * (values.ndim - 1) + (-1,)
        mean, spread = (jnp.asarray(x, values.dtype).reshape(shape) for x in (self.mean, self.spread))
        return (values / 255 - mean) / spread


MINI_IMAGENET_PIXELS = PixelScaling(
    (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255),
    (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255),
)
"""For miniImageNet and tieredImageNet, as Lee et al. (2019) have it. Red, green, blue."""

CIFAR_PIXELS = PixelScaling(
    (129.37731888 / 255, 124.10583864 / 255, 112.47758569 / 255),
    (68.20947949 / 255, 65.43124043 / 255, 70.45866994 / 255),
)
"""For CIFAR-FS and FC100, as Lee et al. (2019) have it. Red, green, blue."""
