"""Layers of the embedding networks."""

__all__ = [
    "BatchNorm",
    "BatchStatistics",
    "Convolution",
    "PointwiseConvolution",
    "convolve",
    "convolve_by_patches",
    "drop_block",
    "dropout",
    "max_pool",
    "norm_and_pool",
]

from comln.backbones.layers.batch_norm import BatchNorm, BatchStatistics
from comln.backbones.layers.convolution import Convolution, convolve, convolve_by_patches
from comln.backbones.layers.dropout import drop_block, dropout
from comln.backbones.layers.max_pool import max_pool
from comln.backbones.layers.norm_and_pool import norm_and_pool
from comln.backbones.layers.pointwise_convolution import PointwiseConvolution
