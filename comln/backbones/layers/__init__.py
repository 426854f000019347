"""Layers of the embedding networks."""

__all__ = ["BatchNorm", "BatchStatistics", "Convolution", "max_pool"]

from comln.backbones.layers.batch_norm import BatchNorm, BatchStatistics
from comln.backbones.layers.convolution import Convolution
from comln.backbones.layers.max_pool import max_pool
