"""Embedding networks, one file each."""

__all__ = ["AbstractBackbone", "Conv4", "Normalisation"]

from comln.backbones.base import AbstractBackbone, Normalisation
from comln.backbones.conv4 import Conv4
