"""Few-shot learners, one file each."""

__all__ = ["COMLN", "AbstractLearner", "AdaptationInfo", "InitialHead", "Outcome"]

from comln.learners.base import AbstractLearner, AdaptationInfo, Outcome
from comln.learners.comln import COMLN, InitialHead
