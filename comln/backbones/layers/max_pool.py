"""Max-pooling with window and stride 2 x 2."""

__all__ = ["max_pool"]

import jax.numpy as jnp

from comln.typing import Array, Float


def max_pool(
    images: Float[Array, "example height width channel"],
) -> Float[Array, "example half_height half_width channel"]:
    """Return the largest of each 2 x 2 square; an odd last row or column is left out.

    Written as a maximum of four slices: its gradient is an elementwise product, where that of the general windowed
    reduction is a scatter (measured: the whole network's gradient takes two thirds of the time on a CPU).

    >>> max_pool(jnp.arange(9.0).reshape(1, 3, 3, 1)).ravel().tolist()
    [4.0]
    """
    example, height, width, channel = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    squares = even.reshape(example, height // 2, 2, width // 2, 2, channel)
    rows = jnp.maximum(squares[:, :, 0], squares[:, :, 1])
    return jnp.maximum(rows[:, :, :, 0], rows[:, :, :, 1])
