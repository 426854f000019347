"""Classifiers on top of embeddings, one file each."""

__all__ = ["LinearHead", "prototypes"]

from comln.heads.linear import LinearHead
from comln.heads.prototypes import prototypes
