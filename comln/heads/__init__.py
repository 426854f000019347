"""Classifiers on top of embeddings, one file each."""

__all__ = ["AbstractHead", "LinearHead", "append_one", "newton_logistic", "prototypes", "ridge", "svm"]

from comln.heads.base import AbstractHead
from comln.heads.linear import LinearHead, append_one
from comln.heads.newton_logistic import newton_logistic
from comln.heads.prototypes import prototypes
from comln.heads.ridge import ridge
from comln.heads.svm import svm
