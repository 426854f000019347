"""Embedding networks, one file each."""

__all__ = ["AbstractBackbone", "Conv4", "FilmConv4", "Identity", "Normalisation", "ResNet12"]

from comln.backbones.base import AbstractBackbone, Normalisation
from comln.backbones.conv4 import Conv4
from comln.backbones.film_conv4 import FilmConv4
from comln.backbones.identity import Identity
from comln.backbones.resnet12 import ResNet12
