"""Random variations of images, on the device, each a pure function of a key."""

__all__ = ["AbstractAugmentation", "AffineJitter", "LeeAugmentation"]

from comln.data.augmentation.affine_jitter import AffineJitter
from comln.data.augmentation.base import AbstractAugmentation
from comln.data.augmentation.lee import LeeAugmentation
