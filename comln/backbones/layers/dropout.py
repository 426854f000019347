"""Dropout of single features (Srivastava et al., 2014) and of squares of them (Ghiasi et al., 2018), for training."""

__all__ = ["drop_block", "dropout"]

import jax
import jax.numpy as jnp

from comln.typing import Array, Float, PRNGKeyArray, Scalar


def dropout(
    images: Float[Array, "example height width channel"], rate: float, key: PRNGKeyArray
) -> Float[Array, "example height width channel"]:
    """Return `images` with a share `rate` of the numbers, in [0, 1), set to zero, and the others divided by 1 - `rate`.

    >>> dropped = dropout(jnp.ones((1, 50, 50, 4)), 0.5, jax.random.key(0))
    >>> sorted(set(dropped.ravel().tolist()))
    [0.0, 2.0]
    """
    kept = jax.random.bernoulli(key, 1 - rate, images.shape)
    return jnp.where(kept, images / (1 - rate), jnp.zeros_like(images))


def drop_block(
    images: Float[Array, "example height width channel"], rate: Scalar, size: int, key: PRNGKeyArray
) -> Float[Array, "example height width channel"]:
    r"""Return `images` with squares of `size` pixels a side set to zero, each channel by itself.

    A square begins at each pixel where one fits, with probability $\frac{r}{b^2}\frac{hw}{(h-b+1)(w-b+1)}$, $r$ the
    rate and $b$ the size: were there no overlaps, a share $r$ would be dropped. What is left is multiplied by the whole
    number of values over that of the values kept, so that the mean stays.

    >>> dropped = drop_block(jnp.ones((1, 5, 5, 400)), jnp.array(0.25), 5, jax.random.key(0))
    >>> len(set(dropped[0, :, :, 0].ravel().tolist())), round(float(dropped.mean()), 6)  # a whole channel or nothing
    (1, 1.0)
    """
    examples, height, width, channels = images.shape
    rows, columns = height - size + 1, width - size + 1
    chance = rate * (height * width / (size**2 * rows * columns))
    begins = jax.random.bernoulli(key, chance, (examples, rows, columns, channels))
    window, margin = (1, size, size, 1), (size - 1, size - 1)
    dropped = jax.lax.reduce_window(
        begins, False, jax.lax.bitwise_or, window, (1, 1, 1, 1), ((0, 0), margin, margin, (0, 0))
    )
    count = jnp.maximum(jnp.sum(~dropped), 1).astype(rate.dtype)
    return jnp.where(dropped, jnp.zeros_like(images), images * (dropped.size / count).astype(images.dtype))
