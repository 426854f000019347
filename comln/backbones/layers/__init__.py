"""Layers of the embedding networks."""

__all__ = ["BatchNorm", "BatchStatistics", "Convolution", "convolve", "convolve_by_patches", "max_pool"]

from comln.backbones.layers.batch_norm import BatchNorm, BatchStatistics
from comln.backbones.layers.convolution import Convolution, convolve, convolve_by_patches
from comln.backbones.layers.max_pool import max_pool
