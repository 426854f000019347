r"""3 x 3 convolutions on images with channels last, with a weight gradient that is fast on CPUs too.

The weight gradient of a convolution is the product of the input's 3 x 3 patches with the output's cotangent,

$$ \bar K = \sum_{\text{images}} \mathrm{patches}(x)^\top \bar y, $$

one matrix product a few images at a time. XLA's own form of it is several times slower on a CPU; elsewhere XLA's own
form is used.

Methods that adapt a whole network to each task need more: gradients of gradients, and a kernel for every task. There
`convolve_by_patches`, whose batch over tasks is a batch of matrix products, takes the place of `convolve`.
"""

__all__ = ["Convolution", "convolve", "convolve_by_patches"]

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.typing import Array, Float, PRNGKeyArray

PATCH_NUMBERS = 1_200_000
"""About how many numbers the patches of one product have: enough to keep the cores busy, few enough for their caches.

Measured on two cores with images of 10 to 84 pixels a side and 1 to 640 channels.
"""

FEW_CHANNELS = 8
"""Up to this many input channels a product of patches is faster with the patches as its left factor."""


class Convolution(eqx.Module):
    """Cross-correlation with a 3 x 3 kernel, stride 1, and zero padding that keeps the size.

    - `kernel`: shape `(3, 3, channel_in, channel_out)`.
    - `bias`: shape `(channel_out,)`, or `None`, as where batch normalisation follows and would remove it.
    - `convolve`: `convolve`, or `convolve_by_patches`.
    """

    kernel: Float[Array, "3 3 channel_in channel_out"]
    bias: Float[Array, " channel_out"] | None
    convolve: Callable[[Array, Array], Array]

    @classmethod
    def init(
        cls,
        channels_in: int,
        channels_out: int,
        use_bias: bool,
        key: PRNGKeyArray,
        convolve: Callable[[Array, Array], Array],
    ) -> "Convolution":
        r"""Return a layer with kernel entries from $N(0, 2 / (9 c_\text{out}))$ (He et al., 2015) and bias zero."""
        spread = (2 / (9 * channels_out)) ** 0.5
        kernel = spread * jax.random.normal(key, (3, 3, channels_in, channels_out))
        return cls(kernel, jnp.zeros(channels_out) if use_bias else None, convolve)

    def __call__(
        self, images: Float[Array, "example height width channel_in"]
    ) -> Float[Array, "example height width channel_out"]:
        """Return the images' channels, mixed over each pixel's neighbourhood, in the images' precision."""
        mixed = self.convolve(images, self.kernel.astype(images.dtype))
        return mixed if self.bias is None else mixed + self.bias.astype(images.dtype)[None, None, None, :]


@jax.custom_vjp
def convolve(
    images: Float[Array, "example height width channel_in"], kernel: Float[Array, "3 3 channel_in channel_out"]
) -> Float[Array, "example height width channel_out"]:
    """Return the cross-correlation of `images` with `kernel`, zero-padded to the same size.

    Differentiable once, in reverse mode.

    >>> kernel = jnp.zeros((3, 3, 1, 1)).at[1, 0, 0, 0].set(1.0)  # looks one pixel to the left
    >>> convolve(jnp.arange(3.0).reshape(1, 1, 3, 1), kernel).ravel().tolist()
    [0.0, 0.0, 1.0]
    """
    return _convolve_directly(images, kernel)


def _convolve_directly(images: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def convolve_by_patches(
    images: Float[Array, "example height width channel_in"], kernel: Float[Array, "3 3 channel_in channel_out"]
) -> Float[Array, "example height width channel_out"]:
    """Return what `convolve` does, as a product of patches and kernel: differentiable any number of times."""
    return (_patches(images) @ kernel.reshape(-1, kernel.shape[-1])).reshape(*images.shape[:3], -1)


def _patches(images: Float[Array, "example height width channel"]) -> Float[Array, "pixel patch"]:
    """Return the 3 x 3 neighbourhood of every pixel of every image, in the order of a kernel's first three axes."""
    height, width, channels = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1).reshape(-1, 9 * channels)


def _forward(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return convolve(images, kernel), (images, kernel)


def _backward(residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    images, kernel = residuals
    # The transpose of a convolution in its input is the convolution with the kernel turned by half a circle.
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    kernel_bar = jax.lax.platform_dependent(
        images, kernel, cotangent, cpu=_kernel_cotangent_by_patches, default=_kernel_cotangent_directly
    )
    return _convolve_directly(cotangent, turned), kernel_bar


def _kernel_cotangent_directly(images: Array, kernel: Array, cotangent: Array) -> Array:
    return jax.vjp(lambda kernel: _convolve_directly(images, kernel), kernel)[1](cotangent)[0]


def _kernel_cotangent_by_patches(images: Array, kernel: Array, cotangent: Array) -> Array:
    examples, height, width, channels_in = images.shape
    channels_out = cotangent.shape[-1]
    together = _largest_divisor(examples, PATCH_NUMBERS // (9 * channels_in * height * width))
    groups = examples // together
    # In half precision a sum over many pixels would lose its small terms.
    number = jnp.float32 if kernel.dtype == jnp.bfloat16 else kernel.dtype
    patches_first = channels_in <= FEW_CHANNELS

    def add(total: Array, group: tuple[Array, Array]) -> tuple[Array, None]:
        some_images, some_cotangent = group
        factors = (_patches(some_images), some_cotangent) if patches_first else (some_cotangent, _patches(some_images))
        return total + jnp.matmul(factors[0].T, factors[1], preferred_element_type=number), None

    start = jnp.zeros((9 * channels_in, channels_out) if patches_first else (channels_out, 9 * channels_in), number)
    # The cotangent's pixels are laid in rows before the loop: inside it, that costs as much as the product.
    rows = cotangent.reshape(groups, together * height * width, channels_out)
    total, _ = jax.lax.scan(add, start, (images.reshape(groups, together, *images.shape[1:]), rows))
    return (total if patches_first else total.T).reshape(kernel.shape).astype(kernel.dtype)


def _largest_divisor(number: int, at_most: int) -> int:
    return max(d for d in range(1, max(1, min(number, at_most)) + 1) if number % d == 0) if number else 1


convolve.defvjp(_forward, _backward)
