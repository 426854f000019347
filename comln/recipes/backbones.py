"""The embedding networks as configurations: what can be set of each, and how it is built from it."""

__all__ = ["BACKBONES", "BackboneConfig", "Conv4Config", "ResNet12Config"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from comln.backbones import AbstractBackbone, Conv4, ResNet12
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
        self, image_size: int, channels: int, key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> AbstractBackbone:
        """Return the untrained network."""
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
        self, image_size: int, channels: int, key: PRNGKeyArray, convolve: Callable[[Array, Array], Array]
    ) -> AbstractBackbone:
        """Return the untrained network."""
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


BackboneConfig = Conv4Config | ResNet12Config
"""The configuration of any network."""

BACKBONES: Mapping[str, BackboneConfig] = {"resnet12": ResNet12Config()}
"""Networks other than a recipe's own, by the word that asks for them at the end of its name."""
