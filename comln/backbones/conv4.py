"""Conv-4: the four-block network of the few-shot literature (Vinyals et al., 2016; Finn et al., 2017)."""

__all__ = ["Conv4", "check_sizes"]

from collections.abc import Callable

import jax
import jax.numpy as jnp

from comln.backbones.base import AbstractBackbone, Normalisation
from comln.backbones.layers import BatchNorm, BatchStatistics, Convolution, convolve, norm_and_pool
from comln.typing import Array, Float, PRNGKeyArray


class Conv4(AbstractBackbone):
    r"""Four blocks of 3 x 3 convolution, batch normalisation, ReLU and 2 x 2 max-pooling; then flattened (paper, E.5).

    With 84 x 84 images and 64 filters the embedding has 1600 features, with 28 x 28 images and 32 filters 32.

    - `scale_output`: divide the embedding by the square root of its size $d$, so that its norm does not grow with $d$.
      Without, the norm squared is of order $d$, and the horizon is worth $d$ times as much.
    - `bfloat16`: compute the features in bfloat16, for accelerators. Parameters, statistics and embeddings keep the
      precision of the inputs.

    **Example:** the sizes of the paper's network.

    >>> backbone = Conv4.init(image_size=84, channels=3, filters=64, key=jax.random.key(0))
    >>> backbone.embedding_size
    1600
    """

    convolutions: tuple[Convolution, ...]
    norms: tuple[BatchNorm, ...]
    image_size: int
    scale_output: bool
    bfloat16: bool = False

    @classmethod
    def init(
        cls,
        image_size: int,
        channels: int,
        filters: int,
        key: PRNGKeyArray,
        scale_output: bool = True,
        convolve: Callable[[Array, Array], Array] = convolve,
        bfloat16: bool = False,
    ) -> "Conv4":
        """Return a network for square images of `image_size` pixels; at least 16, for four halvings.

        - `convolve`: `convolve_by_patches` where the network is adapted to each task.
        """
        check_sizes(image_size, filters)
        inputs = (channels, filters, filters, filters)
        keys = jax.random.split(key, 4)
        convolutions = tuple(
            Convolution.init(size, filters, use_bias=False, key=k, convolve=convolve)
            for size, k in zip(inputs, keys, strict=True)
        )
        return cls(convolutions, tuple(BatchNorm.init(filters) for _ in inputs), image_size, scale_output, bfloat16)

    @property
    def embedding_size(self) -> int:
        return (self.image_size // 16) ** 2 * self.convolutions[-1].kernel.shape[-1]

    def initial_statistics(self) -> tuple[BatchStatistics, ...]:
        return tuple(norm.initial_statistics() for norm in self.norms)

    def __call__(
        self,
        inputs: Float[Array, "example height width channel"],
        statistics: tuple[BatchStatistics, ...],
        normalisation: Normalisation,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "example feature"], tuple[BatchStatistics, ...]]:
        hidden, moved = inputs.astype(jnp.bfloat16) if self.bfloat16 else inputs, []
        for convolution, norm, averages in zip(self.convolutions, self.norms, statistics, strict=True):
            # The maximum commutes with the ReLU, which is applied to a quarter of the values this way.
            hidden, averages = norm_and_pool(norm, convolution(hidden), averages, normalisation)
            hidden = jax.nn.relu(hidden)
            moved.append(averages)
        embeddings = hidden.reshape(hidden.shape[0], -1).astype(inputs.dtype)
        scale = 1 / jnp.sqrt(embeddings.shape[1]) if self.scale_output else 1.0
        return embeddings * jnp.asarray(scale, embeddings.dtype), tuple(moved)


def check_sizes(image_size: int, filters: int) -> None:
    """Raise `ValueError` where four blocks of `filters` channels cannot take images of `image_size` pixels a side."""
    if image_size < 16:
        raise ValueError(f"Conv4 halves the image four times, so it needs at least 16 pixels a side, got {image_size}.")
    if filters < 1:
        raise ValueError(f"Conv4 needs at least 1 filter, got {filters}.")
