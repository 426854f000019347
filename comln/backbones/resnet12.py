"""ResNet-12: the twelve-layer residual network of the few-shot literature, with the widths of Lee et al. (2019)."""

__all__ = ["ResNet12", "ResNet12Statistics", "ResidualBlock"]

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from comln.backbones.base import AbstractBackbone, Normalisation
from comln.backbones.layers import (
    BatchNorm,
    BatchStatistics,
    Convolution,
    PointwiseConvolution,
    convolve,
    drop_block,
    dropout,
    max_pool,
)
from comln.typing import Array, Float, Int, PRNGKeyArray, Scalar

SLOPE = 0.1
"""Of the LeakyReLU where its input is negative."""


class ResidualBlock(eqx.Module):
    """Three 3 x 3 convolutions beside a 1 x 1 one, each normalised; their sum, LeakyReLU, and 2 x 2 max-pooling.

    - `convolutions`, `norms`: of the three; a LeakyReLU follows the first two.
    - `shortcut`, `shortcut_norm`: of the 1 x 1 convolution.
    """

    convolutions: tuple[Convolution, ...]
    norms: tuple[BatchNorm, ...]
    shortcut: PointwiseConvolution
    shortcut_norm: BatchNorm

    @classmethod
    def init(
        cls, channels_in: int, channels_out: int, key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> "ResidualBlock":
        """Return an untrained block."""
        *keys, shortcut_key = jax.random.split(key, 4)
        convolutions = tuple(
            Convolution.init(size, channels_out, use_bias=False, key=k, convolve=convolve)
            for size, k in zip((channels_in, channels_out, channels_out), keys, strict=True)
        )
        return cls(
            convolutions,
            tuple(BatchNorm.init(channels_out) for _ in convolutions),
            PointwiseConvolution.init(channels_in, channels_out, shortcut_key),
            BatchNorm.init(channels_out),
        )

    def initial_statistics(self) -> tuple[BatchStatistics, ...]:
        """Return those of the three normalisations, and of the shortcut's."""
        return tuple(norm.initial_statistics() for norm in (*self.norms, self.shortcut_norm))

    def __call__(
        self,
        images: Float[Array, "example height width channel_in"],
        statistics: tuple[BatchStatistics, ...],
        normalisation: Normalisation,
    ) -> tuple[Float[Array, "example half_height half_width channel_out"], tuple[BatchStatistics, ...]]:
        """Return the block's features, and the moved statistics."""
        hidden, moved = images, []
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            hidden = hidden if layer == 0 else _leaky_relu(hidden)
            hidden, averages = norm(convolution(hidden), statistics[layer], normalisation)
            moved.append(averages)
        beside, averages = self.shortcut_norm(self.shortcut(images), statistics[-1], normalisation)
        # The maximum commutes with the LeakyReLU, which is applied to a quarter of the values this way.
        return _leaky_relu(max_pool(hidden + beside)), (*moved, averages)


class ResNet12Statistics(eqx.Module):
    """Running averages block by block, and how often the network was called in training."""

    blocks: tuple[tuple[BatchStatistics, ...], ...]
    calls: Int[Array, ""]


class ResNet12(AbstractBackbone):
    r"""Four residual blocks, then flattened without any pooling over the image (paper, E.5).

    With 84 x 84 images and the paper's widths the embedding has 16,000 features, with 28 x 28 images 640.

    - `global_average`: average over the pixels instead of flattening, so that the embedding has the last width's size.
    - `scale_output`: divide the embedding by the square root of its size $d$, as in `Conv4`.
    - `dropout`: share of the features set to zero after each of the first two blocks, in training.
    - `drop_block`: share of them set to zero in squares after each of the last two, in training. It grows linearly
      from zero, to this value at call number `drop_block_calls`.
    - `drop_block_size`: side of the squares, in pixels of the features.
    - `bfloat16`: compute the features in bfloat16, for accelerators, as in `Conv4`.

    **Example:** the sizes of the paper's network.

    >>> import equinox as eqx
    >>> shapes = eqx.filter_eval_shape(ResNet12.init, image_size=84, channels=3, key=jax.random.key(0))
    >>> shapes.embedding_size
    16000
    """

    blocks: tuple[ResidualBlock, ...]
    image_size: int
    global_average: bool = False
    scale_output: bool = True
    dropout: float = 0.0
    drop_block: float = 0.0
    drop_block_size: int = 5
    drop_block_calls: int = 20_000
    bfloat16: bool = False

    @classmethod
    def init(
        cls,
        image_size: int,
        channels: int,
        key: PRNGKeyArray,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        global_average: bool = False,
        scale_output: bool = True,
        dropout: float = 0.0,
        drop_block: float = 0.0,
        drop_block_size: int = 5,
        drop_block_calls: int = 20_000,
        bfloat16: bool = False,
        convolve: Callable[[Array, Array], Array] = convolve,
    ) -> "ResNet12":
        """Return a network for square images of `image_size` pixels; at least 16, for four halvings.

        - `convolve`: `convolve_by_patches` where the network is adapted to each task.
        """
        _check_sizes(image_size, widths)
        _check_regularisers(image_size, dropout, drop_block, drop_block_size, drop_block_calls)
        inputs = (channels, *widths[:3])
        blocks = tuple(
            ResidualBlock.init(size_in, size_out, k, convolve)
            for size_in, size_out, k in zip(inputs, widths, jax.random.split(key, 4), strict=True)
        )
        return cls(
            blocks,
            image_size,
            global_average,
            scale_output,
            dropout,
            drop_block,
            drop_block_size,
            drop_block_calls,
            bfloat16,
        )

    @property
    def embedding_size(self) -> int:
        width = self.blocks[-1].convolutions[-1].kernel.shape[-1]
        return width if self.global_average else (self.image_size // 16) ** 2 * width

    def initial_statistics(self) -> ResNet12Statistics:
        return ResNet12Statistics(tuple(block.initial_statistics() for block in self.blocks), jnp.zeros((), jnp.int32))

    def __call__(
        self,
        inputs: Float[Array, "example height width channel"],
        statistics: ResNet12Statistics,
        normalisation: Normalisation,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "example feature"], ResNet12Statistics]:
        hidden, moved = inputs.astype(jnp.bfloat16) if self.bfloat16 else inputs, []
        for number, (block, averages) in enumerate(zip(self.blocks, statistics.blocks, strict=True)):
            hidden, averages = block(hidden, averages, normalisation)
            moved.append(averages)
            if key is not None:
                hidden = self._drop(hidden, number, statistics.calls, jax.random.fold_in(key, number))
        hidden = hidden.astype(inputs.dtype)
        embeddings = jnp.mean(hidden, (1, 2)) if self.global_average else hidden.reshape(len(hidden), -1)
        if self.scale_output:
            embeddings = embeddings / jnp.sqrt(jnp.asarray(embeddings.shape[1], embeddings.dtype))
        calls = statistics.calls if key is None else statistics.calls + 1
        return embeddings, ResNet12Statistics(tuple(moved), calls)

    def _drop(self, hidden: Array, number: int, calls: Int[Array, ""], key: PRNGKeyArray) -> Array:
        if number < 2:
            return dropout(hidden, self.dropout, key) if self.dropout > 0 else hidden
        if self.drop_block == 0:
            return hidden
        return drop_block(hidden, self._drop_block_rate(calls), self.drop_block_size, key)

    def _drop_block_rate(self, calls: Int[Array, ""]) -> Scalar:
        """Return the rate of the call that follows `calls` others."""
        share = (calls + 1).astype(jnp.result_type(float)) / self.drop_block_calls
        return self.drop_block * jnp.minimum(share, 1.0)


def _leaky_relu(x: Array) -> Array:
    return jax.nn.leaky_relu(x, SLOPE)


def _check_sizes(image_size: int, widths: tuple[int, ...]) -> None:
    if image_size < 16:
        raise ValueError(
            f"ResNet-12 halves the image four times, so it needs at least 16 pixels a side, got {image_size}."
        )
    if min(widths) < 1:
        raise ValueError(f"ResNet-12 needs at least 1 channel in every block, got {', '.join(map(str, widths))}.")


def _check_regularisers(
    image_size: int, dropout: float, drop_block: float, drop_block_size: int, drop_block_calls: int
) -> None:
    for name, rate in (("dropout", dropout), ("DropBlock", drop_block)):
        if not 0 <= rate < 1:
            raise ValueError(f"The rate of {name} must be at least 0 and below 1, got {rate}.")
    if drop_block_calls < 1:
        raise ValueError(f"DropBlock must grow over at least 1 call, got {drop_block_calls}.")
    smallest = image_size // 16
    if drop_block > 0 and not 1 <= drop_block_size <= smallest:
        raise ValueError(
            f"The squares of DropBlock must be between 1 and {smallest} pixels wide, the size of the last features of "
            f"{image_size} x {image_size} images, got {drop_block_size}."
        )
