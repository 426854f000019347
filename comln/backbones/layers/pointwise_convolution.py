r"""1 x 1 convolutions: each pixel's channels mixed, its neighbours not looked at."""

__all__ = ["PointwiseConvolution"]

import equinox as eqx
import jax

from comln.typing import Array, Float, PRNGKeyArray


class PointwiseConvolution(eqx.Module):
    """A matrix product over the channels of every pixel: stride 1, no bias.

    It is one product, forwards and backwards, so that no other form is needed: it is fast on CPUs, may be
    differentiated any number of times, and takes a kernel for every task under `vmap`.

    - `kernel`: shape `(channel_in, channel_out)`.

    **Example:** the sum of two channels.

    >>> layer = PointwiseConvolution(jnp.ones((2, 1)))
    >>> layer(jnp.arange(4.0).reshape(1, 1, 2, 2)).ravel().tolist()
    [1.0, 5.0]
    """

    kernel: Float[Array, "channel_in channel_out"]

    @classmethod
    def init(cls, channels_in: int, channels_out: int, key: PRNGKeyArray) -> "PointwiseConvolution":
        r"""Return a layer with kernel entries from $N(0, 2 / c_\text{out})$ (He et al., 2015)."""
        return cls((2 / channels_out) ** 0.5 * jax.random.normal(key, (channels_in, channels_out)))

    def __call__(
        self, images: Float[Array, "example height width channel_in"]
    ) -> Float[Array, "example height width channel_out"]:
        """Return the images' channels, mixed pixel by pixel, in the images' precision."""
        return images @ self.kernel.astype(images.dtype)
