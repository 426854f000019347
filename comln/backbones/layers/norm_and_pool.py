"""Batch normalisation and max-pooling as one step, on a quarter of the values."""

__all__ = ["norm_and_pool"]

import jax.numpy as jnp

from comln.backbones.base import Normalisation
from comln.backbones.layers.batch_norm import BatchNorm, BatchStatistics, as_channel
from comln.backbones.layers.max_pool import max_pool
from comln.typing import Array, Float


def norm_and_pool(
    norm: BatchNorm,
    inputs: Float[Array, "example height width channel"],
    statistics: BatchStatistics,
    normalisation: Normalisation,
) -> tuple[Float[Array, "example half_height half_width channel"], BatchStatistics]:
    """Return `max_pool` of the normalised inputs, and the moved statistics.

    Normalisation is a factor and a shift for each channel. The maximum comes first, of the inputs with the factor's
    sign; the products with the factor, and the sums over pixels in their gradient, are then a quarter as many.

    >>> layer = BatchNorm.init(channels=1, epsilon=0.0)
    >>> inputs = jnp.array([[-1.0, 1.0], [-1.0, 1.0]]).reshape(1, 2, 2, 1)
    >>> norm_and_pool(layer, inputs, layer.initial_statistics(), Normalisation.BATCH)[0].ravel().tolist()
    [1.0]
    """
    factor, shift, statistics = norm.affine_map(inputs, statistics, normalisation)
    sign = jnp.where(factor < 0, -1, 1).astype(factor.dtype)
    largest = max_pool(inputs * as_channel(sign.astype(inputs.dtype)))
    normalised = largest.astype(factor.dtype) * as_channel(factor * sign) + as_channel(shift)
    return normalised.astype(inputs.dtype), statistics
