r"""Batch normalisation as a pure function of its input and its running averages (Ioffe and Szegedy, 2015)."""

__all__ = ["BatchNorm", "BatchStatistics", "as_channel"]

import equinox as eqx
import jax.numpy as jnp

from comln.backbones.base import Normalisation
from comln.typing import Array, Float


class BatchStatistics(eqx.Module):
    """Running averages of the mean and variance of each channel."""

    mean: Float[Array, " channel"]
    variance: Float[Array, " channel"]


class BatchNorm(eqx.Module):
    r"""$y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$, channel by channel, over all other axes.

    - `scale`, `shift`: $\gamma$ and $\beta$, shape `(channel,)`.
    - `decay`: weight of the past in the running averages.
    - `epsilon`: $\epsilon$.

    **Example:** two values in one channel become -1 and 1.

    >>> layer = BatchNorm.init(channels=1, epsilon=0.0)
    >>> inputs = jnp.array([3.0, 5.0]).reshape(2, 1, 1, 1)
    >>> outputs, moved = layer(inputs, layer.initial_statistics(), Normalisation.BATCH)
    >>> outputs.ravel().tolist(), round(float(moved.mean[0]), 4)
    ([-1.0, 1.0], 0.4)
    """

    scale: Float[Array, " channel"]
    shift: Float[Array, " channel"]
    decay: float = 0.9
    epsilon: float = 1e-5

    @classmethod
    def init(cls, channels: int, decay: float = 0.9, epsilon: float = 1e-5) -> "BatchNorm":
        """Return the layer that normalises and changes nothing else."""
        return cls(jnp.ones(channels), jnp.zeros(channels), decay, epsilon)

    def initial_statistics(self) -> BatchStatistics:
        """Return mean zero and variance one."""
        return BatchStatistics(jnp.zeros_like(self.shift), jnp.ones_like(self.scale))

    def __call__(
        self,
        inputs: Float[Array, "example height width channel"],
        statistics: BatchStatistics,
        normalisation: Normalisation,
    ) -> tuple[Float[Array, "example height width channel"], BatchStatistics]:
        """Return the normalised inputs, in their own precision, and the running averages moved by this batch."""
        factor, shift, statistics = self.affine_map(inputs, statistics, normalisation)
        normalised = inputs.astype(factor.dtype) * as_channel(factor) + as_channel(shift)
        return normalised.astype(inputs.dtype), statistics

    def affine_map(
        self,
        inputs: Float[Array, "example height width channel"],
        statistics: BatchStatistics,
        normalisation: Normalisation,
    ) -> tuple[Float[Array, " channel"], Float[Array, " channel"], BatchStatistics]:
        """Return what each channel is multiplied by, what is added then, and the moved running averages.

        All are in the precision of `scale`, whatever that of the inputs.
        """
        if normalisation is Normalisation.BATCH:
            numbers = inputs.astype(self.scale.dtype)
            mean = jnp.mean(numbers, axis=(0, 1, 2))
            # Cheaper than the two-pass form by one read of the inputs; they are of order one, so nothing cancels.
            variance = jnp.maximum(jnp.mean(jnp.square(numbers), axis=(0, 1, 2)) - jnp.square(mean), 0.0)
            statistics = BatchStatistics(
                self.decay * statistics.mean + (1 - self.decay) * mean,
                self.decay * statistics.variance + (1 - self.decay) * variance,
            )
        else:
            mean, variance = statistics.mean, statistics.variance
        factor = self.scale / jnp.sqrt(variance + self.epsilon)
        return factor, self.shift - mean * factor, statistics


def as_channel(values: Float[Array, " channel"]) -> Float[Array, "1 1 1 channel"]:
    """Return one number for each channel as an array that fits images."""
    return values[None, None, None, :]
