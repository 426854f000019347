"""The embedding networks as configurations: what can be set of each, and how it is built from it."""

__all__ = ["BACKBONES", "BackboneConfig", "Conv4Config", "IdentityConfig", "ResNet12Config", "size_and_channels"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comln.backbones import AbstractBackbone, Conv4, Identity, ResNet12
from comln.typing import Array, PRNGKeyArray


@dataclass(frozen=True)
class Conv4Config:
    """The four-block convolutional network."""

    filters: int = 32
    """channels of every block"""
    scale_output: bool = True
    """divide embeddings by the square root of their size"""
    bfloat16: bool = False
    """compute features in half precision, for accelerators"""

    def build(
        self, example_shape: tuple[int, ...], key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> AbstractBackbone:
        """Return the untrained network."""
        image_size, channels = size_and_channels(example_shape)
        return Conv4.init(image_size, channels, self.filters, key, self.scale_output, convolve, self.bfloat16)


@dataclass(frozen=True)
class ResNet12Config:
    """The twelve-layer residual network."""

    widths: tuple[int, int, int, int] = (64, 160, 320, 640)
    """channels of the four blocks"""
    global_average: bool = False
    """average features over the image instead of flattening them"""
    scale_output: bool = True
    """divide embeddings by the square root of their size"""
    dropout: float = 0.0
    """share of the features of the first two blocks set to zero, in training"""
    drop_block: float = 0.0
    """share of the features of the last two blocks set to zero in squares, in training"""
    drop_block_size: int = 5
    """side of these squares, in pixels of the features"""
    drop_block_calls: int = 20_000
    """updates over which that share grows from zero"""
    bfloat16: bool = False
    """compute features in half precision, for accelerators"""

    def build(
        self, example_shape: tuple[int, ...], key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> AbstractBackbone:
        """Return the untrained network."""
        image_size, channels = size_and_channels(example_shape)
        return ResNet12.init(
            image_size,
            channels,
            key,
            self.widths,
            self.global_average,
            self.scale_output,
            self.dropout,
            self.drop_block,
            self.drop_block_size,
            self.drop_block_calls,
            self.bfloat16,
            convolve,
        )


@dataclass(frozen=True)
class IdentityConfig:
    """No network: the examples are embeddings, from one that was trained before."""

    scale_output: bool = False
    """has no effect: embeddings are used as they are"""

    def build(
        self, example_shape: tuple[int, ...], key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> AbstractBackbone:
        """Return the identity."""
        if len(example_shape) != 1:
            raise ValueError("Without a network the examples must be embeddings, and these are images.")
        return Identity(example_shape[0])


def size_and_channels(example_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the pixels a side and the channels of square images.

    **Raises:** `ValueError` for embeddings.

    >>> size_and_channels((84, 84, 3))
    (84, 3)
    """
    if len(example_shape) != 3:
        raise ValueError("This network embeds images, and the examples are embeddings already.")
    return example_shape[0], example_shape[2]


BackboneConfig = Conv4Config | ResNet12Config | IdentityConfig
"""The configuration of any network."""

BACKBONES: Mapping[str, BackboneConfig] = {"resnet12": ResNet12Config()}
"""Networks other than a recipe's own, by the word that asks for them at the end of its name."""
